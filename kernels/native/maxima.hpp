// What a max pooling chose: each window's first maximum. Included inside a level's namespace. A window that holds NaN
// passes on NaN, which makes its sample's statistics NaN.

// A place in a plane, as wide as T, so that both fill the same vectors.
template <class T>
using Place = std::conditional_t<sizeof(T) == sizeof(float), std::int32_t, std::int64_t>;

// Of every window of one plane the place of its first maximum, and the derivative given to that.
template <class T>
void maxima_of_windows(const PoolPlan& plan, const Index* place, const T* seen, const T* pooled, Place<T>* at,
                       T* given) {
  const Index* cell = plan.cell;
  for (Index w = 0; w < plan.window_count; ++w, cell += plan.kernel_size) {
    Index first = cell[0];
    T largest = seen[first];
    for (Index k = 1; k < plan.kernel_size; ++k) {
      const T value = seen[cell[k]];
      const bool more = (value > largest) | (value != value);  // NaN is taken, and nothing is more than it
      first = more ? cell[k] : first;
      largest = more ? value : largest;
    }
    at[w] = static_cast<Place<T>>(place[first]);
    given[w] = largest == largest ? pooled[plan.window[w]] : T(NAN);
  }
}

// Squares of four cells, side by side in two rows: their places need no table. `side` and `down` are the places' steps.
template <class T>
struct Squares {
  Index side, down, across;

  Place<T> of(const T* top, const T* low, Index corner) const {
    const bool right = top[1] > top[0], low_right = low[1] > low[0], lower = low[low_right] > top[right];
    return static_cast<Place<T>>(corner + (lower ? down + low_right * side : right * side));
  }

#if defined(GRADSCORE_SHUFFLE)
  // Every second number of two vectors, from the first (Odd = 0) or the second (Odd = 1) on.
  template <class V, int Odd, int... I>
  static GRADSCORE_INLINE V every_second(V x, V y, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(x, y, (2 * I + Odd)...);
  }
  template <int W, int... I>
  static GRADSCORE_INLINE Vector<Place<T>, W> counted(Place<T> step, std::integer_sequence<int, I...>) {
    return Vector<Place<T>, W>{(2 * I * step)...};
  }

  // W squares at once.
  template <int W>
  GRADSCORE_INLINE void block(const T* top, const T* low, Index corner, Place<T>* at, T* doubt) const {
    constexpr std::make_integer_sequence<int, W> all;
    using Lanes = Vector<T, W>;
    using Places = Vector<Place<T>, W>;
    const Lanes top0 = load<T, W>(top), top1 = load<T, W>(top + W), low0 = load<T, W>(low), low1 = load<T, W>(low + W);
    const Lanes sums = top0 + top1 + low0 + low1;
    store<T, W>(doubt, load<T, W>(doubt) + (sums - sums));
    const Lanes a = every_second<Lanes, 0>(top0, top1, all), b = every_second<Lanes, 1>(top0, top1, all);
    const Lanes c = every_second<Lanes, 0>(low0, low1, all), d = every_second<Lanes, 1>(low0, low1, all);
    const Place<T> x = static_cast<Place<T>>(side), y = static_cast<Place<T>>(down);
    const Places none = fill<Place<T>, W>(0), right = fill<Place<T>, W>(x);
    const Places below = fill<Place<T>, W>(y), last = fill<Place<T>, W>(x + y);
    const Places upper_place = b > a ? right : none, lower_place = d > c ? last : below;
    const Lanes upper = b > a ? b : a, lower = d > c ? d : c;
    const Places corners = fill<Place<T>, W>(static_cast<Place<T>>(corner)) + counted<W>(x, all);
    store<Place<T>, W>(at, corners + (lower > upper ? lower_place : upper_place));
  }
#endif

  // One row of squares; `room` counts the numbers of `low` that may be read, and `at` may be written up to a vector on.
  // Of the numbers of `doubt` one is no longer 0 if there may be NaN.
  template <int W>
  void row(const T* top, const T* low, Index room, Index corner, Place<T>* at, T* doubt) const {
#if defined(GRADSCORE_SHUFFLE)
    if (across <= W && 2 * across > W && room >= 2 * W) return block<W>(top, low, corner, at, doubt);
    if (across >= W) {
      for (Index start = 0; start < across; start += W) {
        const Index i = start + W <= across ? start : across - W;  // the last block overlaps the one before
        block<W>(top + 2 * i, low + 2 * i, corner + 2 * i * side, at + i, doubt);
      }
      return;
    }
    if constexpr (W > 2) return row<W / 2>(top, low, room, corner, at, doubt);
#endif
    for (Index i = 0; i < 2 * across; ++i) *doubt += (top[i] + low[i]) - (top[i] + low[i]);
    for (Index i = 0; i < across; ++i) at[i] = of(top + 2 * i, low + 2 * i, corner + 2 * i * side);
  }
};

// Of every window of every plane, in order, the place of its first maximum; `place` lists those of a plane's cells, a
// grid. Returns the derivatives given to them: `pooled` itself, or what was written to `room`.
template <class T>
const T* maxima(const PoolPlan& plan, const Index* place, const T* activation, const T* pooled, Place<T>* at, T* room) {
  const Index columns = plan.square_columns;
  T* given = room;
  if (columns == 0) {
    for (Index i = 0; i < plan.planes; ++i, activation += plan.plane, pooled += plan.pooled_plane) {
      maxima_of_windows(plan, place, activation, pooled, at, given);
      at += plan.window_count;
      given += plan.window_count;
    }
    return room;
  }
  const T* end = activation + plan.planes * plan.plane;
  const Squares<T> squares{columns > 1 ? place[1] - place[0] : 0, place[columns] - place[0], columns / 2};
  alignas(64) T doubt[kWidth<T>] = {};
  for (const T* seen = activation; seen < end; seen += plan.plane) {
    for (Index w = 0, cell = 0; w < plan.window_count; w += squares.across, cell += 2 * columns, at += squares.across) {
      const T* low = seen + cell + columns;
      squares.template row<kWidth<T>>(seen + cell, low, end - low, place[cell], at, doubt);
    }
  }
  T sum = 0;
  for (const T one : doubt) sum += one;
  if (sum == 0) return pooled;
  for (const T* seen = activation; seen < end; seen += plan.plane) {
    for (Index w = 0; w < plan.window_count; ++w) {
      const T* top = seen + w / squares.across * 2 * columns + w % squares.across * 2;
      const T* low = top + columns;
      const bool numbers = top[0] == top[0] && top[1] == top[1] && low[0] == low[0] && low[1] == low[1];
      *given++ = numbers ? *pooled : T(NAN);
      ++pooled;
    }
  }
  return room;
}
