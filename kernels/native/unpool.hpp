// The derivative in front of a max pooling: each window's goes to its first maximum. Included inside a level's
// namespace. A window that holds NaN passes on NaN, which makes its sample's statistics NaN.

template <class T>
void unpool_windows(const PoolPlan& plan, const T* seen, const T* pooled, T* delta) {
  for (Index i = 0; i < plan.plane; ++i) delta[i] = 0;
  for (Index w = 0; w < plan.windows; ++w) {
    const Index *cell = plan.cell + plan.first[w], *end = plan.cell + plan.first[w + 1];
    if (cell == end) continue;  // nothing but padding
    Index at = *cell;
    bool number = true;
    for (; cell < end; ++cell) {
      number = number && seen[*cell] == seen[*cell];
      at = seen[*cell] > seen[at] ? *cell : at;
    }
    delta[at] += number ? pooled[w] : T(NAN);
  }
}

// Squares of four cells, side by side, of two rows: no table, no clearing, and a loop that compilers turn into vectors.
template <class T>
void unpool_squares(Index across, const T* __restrict top, const T* __restrict low, const T* __restrict pooled,
                    T* __restrict above, T* __restrict below) {
  for (Index x = 0; x < across; ++x) {
    const T a = top[2 * x], b = top[2 * x + 1], c = low[2 * x], d = low[2 * x + 1], given = pooled[x];
    const T upper = b > a ? b : a, lower = d > c ? d : c;
    const T sum = (a - a) + (b - b) + (c - c) + (d - d);
    const T g = sum == sum ? given : sum;
    const T up = lower > upper ? T(0) : g, down = lower > upper ? g : T(0);
    above[2 * x] = b > a ? T(0) : up;
    above[2 * x + 1] = b > a ? up : T(0);
    below[2 * x] = d > c ? T(0) : down;
    below[2 * x + 1] = d > c ? down : T(0);
  }
}

template <class T>
void unpool_plane(Index rows, Index columns, const T* seen, const T* pooled, T* delta) {
  for (Index y = 0; y + 1 < rows; y += 2, pooled += columns / 2) {
    T* to = delta + y * columns;
    unpool_squares(columns / 2, seen + y * columns, seen + (y + 1) * columns, pooled, to, to + columns);
    if (columns % 2 > 0) to[columns - 1] = to[2 * columns - 1] = 0;
  }
  for (Index x = (rows - rows % 2) * columns; x < rows * columns; ++x) delta[x] = 0;
}

template <class T>
void unpool(const PoolPlan& plan, const T* activation, const T* pooled, T* delta) {
  for (Index i = 0; i < plan.planes; ++i, activation += plan.plane, pooled += plan.windows, delta += plan.plane) {
    if (plan.pair_columns > 0) {
      unpool_plane(plan.plane / plan.pair_columns, plan.pair_columns, activation, pooled, delta);
    } else {
      unpool_windows(plan, activation, pooled, delta);
    }
  }
}
