// The derivative in front of a max pooling: each window's goes to its first maximum. Included inside a level's
// namespace. A window that holds NaN passes on NaN, which makes its sample's statistics NaN.

template <class T>
void unpool_windows(const PoolPlan& plan, const T* seen, const T* pooled, T* delta) {
  for (Index i = 0; i < plan.plane; ++i) delta[i] = 0;
  const Index* cell = plan.cell;
  for (Index w = 0; w < plan.window_count; ++w, cell += plan.kernel_size) {
    Index at = cell[0];
    T largest = seen[at];
    for (Index k = 1; k < plan.kernel_size; ++k) {
      const T value = seen[cell[k]];
      const bool more = (value > largest) | (value != value);  // NaN is taken, and nothing is more than it
      at = more ? cell[k] : at;
      largest = more ? value : largest;
    }
    delta[at] += largest == largest ? pooled[plan.window[w]] : T(NAN);
  }
}

// Squares of four cells, side by side in two rows, need no table and no clearing.
template <class T>
void unpool_square(const T* top, const T* low, T g, T* above, T* below) {
  const bool right = top[1] > top[0], low_right = low[1] > low[0], lower = low[low_right] > top[right];
  const bool number = top[0] == top[0] && top[1] == top[1] && low[0] == low[0] && low[1] == low[1];
  above[0] = above[1] = below[0] = below[1] = 0;
  (lower ? below[low_right] : above[right]) = number ? g : T(NAN);
}

#if defined(GRADSCORE_SHUFFLE)
// Every second number of two vectors, from the first (Odd = 0) or the second (Odd = 1) on.
template <class T, int W, int Odd, class Sequence>
struct Unzip;
template <class T, int W, int Odd, int... I>
struct Unzip<T, W, Odd, std::integer_sequence<int, I...>> {
  static GRADSCORE_INLINE Vector<T, W> of(Vector<T, W> x, Vector<T, W> y) {
    return __builtin_shufflevector(x, y, (2 * I + Odd)...);
  }
};

// W squares at once.
template <class T, int W>
GRADSCORE_INLINE void unpool_block(const T* top, const T* low, const T* pooled, T* above, T* below) {
  using All = std::make_integer_sequence<int, W>;
  using Lanes = Vector<T, W>;
  const Lanes top0 = load<T, W>(top), top1 = load<T, W>(top + W), low0 = load<T, W>(low), low1 = load<T, W>(low + W);
  const Lanes a = Unzip<T, W, 0, All>::of(top0, top1), b = Unzip<T, W, 1, All>::of(top0, top1);
  const Lanes c = Unzip<T, W, 0, All>::of(low0, low1), d = Unzip<T, W, 1, All>::of(low0, low1), none = {};
  const auto right = b > a, low_right = d > c;
  const auto lower = (low_right ? d : c) > (right ? b : a);
  const auto number = (a == a) & (b == b) & (c == c) & (d == d);
  const Lanes g = number ? load<T, W>(pooled) : fill<T, W>(NAN);
  const Lanes up = lower ? none : g, down = lower ? g : none;
  const Lanes up0 = right ? none : up, up1 = right ? up : none;
  const Lanes down0 = low_right ? none : down, down1 = low_right ? down : none;
  store<T, W>(above, Zip<T, W, 0, All>::of(up0, up1));
  store<T, W>(above + W, Zip<T, W, 1, All>::of(up0, up1));
  store<T, W>(below, Zip<T, W, 0, All>::of(down0, down1));
  store<T, W>(below + W, Zip<T, W, 1, All>::of(down0, down1));
}
#endif

template <class T, int W>
void unpool_squares(Index across, const T* top, const T* low, const T* pooled, T* above, T* below) {
#if defined(GRADSCORE_SHUFFLE)
  if (across >= W) {
    for (Index start = 0; start < across; start += W) {
      const Index at = start + W <= across ? start : across - W;  // the last block overlaps the one before
      unpool_block<T, W>(top + 2 * at, low + 2 * at, pooled + at, above + 2 * at, below + 2 * at);
    }
    return;
  }
  if constexpr (W > 2) return unpool_squares<T, W / 2>(across, top, low, pooled, above, below);
#endif
  for (Index x = 0; x < across; ++x) {
    unpool_square(top + 2 * x, low + 2 * x, pooled[x], above + 2 * x, below + 2 * x);
  }
}

template <class T>
void unpool_plane(Index rows, Index columns, const T* seen, const T* pooled, T* delta) {
  for (Index y = 0; y + 1 < rows; y += 2, pooled += columns / 2) {
    T* to = delta + y * columns;
    unpool_squares<T, kWidth<T>>(columns / 2, seen + y * columns, seen + (y + 1) * columns, pooled, to, to + columns);
    if (columns % 2 > 0) to[columns - 1] = to[2 * columns - 1] = 0;
  }
  for (Index x = (rows - rows % 2) * columns; x < rows * columns; ++x) delta[x] = 0;
}

template <class T>
void unpool(const PoolPlan& plan, const T* activation, const T* pooled, T* delta) {
  for (Index i = 0; i < plan.planes; ++i, activation += plan.plane, pooled += plan.pooled_plane, delta += plan.plane) {
    if (plan.square_columns > 0) {
      unpool_plane(plan.plane / plan.square_columns, plan.square_columns, activation, pooled, delta);
    } else {
      unpool_windows(plan, activation, pooled, delta);
    }
  }
}
