// What a max pooling chose: each window's first maximum. A window that holds NaN passes on NaN, which makes its
// sample's statistics NaN.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "instruction_set.hpp"
#include "lanes.hpp"
#include "level.hpp"
#include "simd.hpp"

namespace gradscore::GRADSCORE_LEVEL {

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

  Squares(const PoolPlan& plan, const Index* place)
      : side(plan.square_columns > 1 ? place[1] - place[0] : 0),
        down(place[plan.square_columns] - place[0]),
        across(plan.square_columns / 2) {}

  // One row of them, one by one; `doubt` is no longer 0 if there may be NaN.
  void row(const T* top, const T* low, Index corner, Place<T>* at, T& doubt) const {
    for (Index i = 0; i < across; ++i, top += 2, low += 2, corner += 2 * side) {
      const bool right = top[1] > top[0], low_right = low[1] > low[0], lower = low[low_right] > top[right];
      at[i] = static_cast<Place<T>>(corner + (lower ? down + low_right * side : right * side));
      const T sum = top[0] + top[1] + low[0] + low[1];
      doubt += sum - sum;
    }
  }
};

#if defined(GRADSCORE_SHUFFLE)
// Every second number of two vectors, from the first (Odd = 0) or the second (Odd = 1) on.
template <int Odd, class V, int... I>
GRADSCORE_INLINE V every_second(V x, V y, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(x, y, (2 * I + Odd)...);
}
template <class T, int... I>
GRADSCORE_INLINE Vector<T, sizeof...(I)> counted(T step, std::integer_sequence<int, I...>) {
  return Vector<T, sizeof...(I)>{(2 * I * step)...};
}

// W squares at once: the places of their maxima, seen from the first square's corner.
template <class T, int W>
struct SquareBlock {
  using Lanes = Vector<T, W>;
  using Places = Vector<Place<T>, W>;
  static constexpr std::make_integer_sequence<int, W> kAll{};
  Places corners, right, below, last;

  explicit SquareBlock(const Squares<T>& squares)
      : corners(counted(static_cast<Place<T>>(squares.side), kAll)),
        right(fill<Place<T>, W>(static_cast<Place<T>>(squares.side))),
        below(fill<Place<T>, W>(static_cast<Place<T>>(squares.down))),
        last(fill<Place<T>, W>(static_cast<Place<T>>(squares.side + squares.down))) {}

  GRADSCORE_INLINE Places run(const T* top, const T* low, Lanes& doubt) const {
    const Lanes top0 = load<T, W>(top), top1 = load<T, W>(top + W), low0 = load<T, W>(low), low1 = load<T, W>(low + W);
    const Lanes sums = top0 + top1 + low0 + low1;
    doubt = doubt + (sums - sums);
    const Lanes a = every_second<0>(top0, top1, kAll), b = every_second<1>(top0, top1, kAll);
    const Lanes c = every_second<0>(low0, low1, kAll), d = every_second<1>(low0, low1, kAll);
    const Places upper_place = b > a ? right : fill<Place<T>, W>(0), lower_place = d > c ? last : below;
    const Lanes upper = b > a ? b : a, lower = d > c ? d : c;
    return corners + (lower > upper ? lower_place : upper_place);
  }
};

// The places of all squares' maxima, blocks of W at a time, of which the last of a row overlaps the one before, or
// reaches beyond the row. Returns 0, or anything else if there may be NaN.
template <class T, int W>
T maxima_of_squares(const PoolPlan& plan, const Index* place, const T* activation, Place<T>* at) {
  const Squares<T> squares(plan, place);
  const Index columns = plan.square_columns, across = squares.across;
  if constexpr (W > 2) {
    if (2 * across <= W) return maxima_of_squares<T, W / 2>(plan, place, activation, at);
  }
  const SquareBlock<T, W> block(squares);
  const T* end = activation + plan.planes * plan.plane;
  Vector<T, W> doubts = fill<T, W>(0);
  T doubt = 0;
  for (const T* seen = activation; seen < end; seen += plan.plane) {
    for (Index w = 0, cell = 0; w < plan.window_count; w += across, cell += 2 * columns, at += across) {
      const T *top = seen + cell, *low = top + columns;
      if (across < W && end - low < 2 * W) {
        squares.row(top, low, place[cell], at, doubt);
        continue;
      }
      for (Index start = 0; start < across; start += W) {
        const Index i = start + W <= across || start == 0 ? start : across - W;
        const auto found = block.run(top + 2 * i, low + 2 * i, doubts);
        store<Place<T>, W>(at + i,
                           found + fill<Place<T>, W>(static_cast<Place<T>>(place[cell] + 2 * i * squares.side)));
      }
    }
  }
  for (int lane = 0; lane < W; ++lane) doubt += doubts[lane];
  return doubt;
}
#else
template <class T, int W>
T maxima_of_squares(const PoolPlan& plan, const Index* place, const T* activation, Place<T>* at) {
  const Squares<T> squares(plan, place);
  const T* end = activation + plan.planes * plan.plane;
  T doubt = 0;
  for (const T* seen = activation; seen < end; seen += plan.plane) {
    for (Index w = 0, cell = 0; w < plan.window_count; w += squares.across, cell += 2 * plan.square_columns) {
      squares.row(seen + cell, seen + cell + plan.square_columns, place[cell], at + w, doubt);
    }
    at += plan.window_count;
  }
  return doubt;
}
#endif

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
  if (maxima_of_squares<T, kWidth<T>>(plan, place, activation, at) == 0) return pooled;
  const T* end = activation + plan.planes * plan.plane;
  for (const T* seen = activation; seen < end; seen += plan.plane) {
    for (Index w = 0; w < plan.window_count; ++w) {
      const T* top = seen + w / (columns / 2) * 2 * columns + w % (columns / 2) * 2;
      const T* low = top + columns;
      const bool numbers = top[0] == top[0] && top[1] == top[1] && low[0] == low[0] && low[1] == low[1];
      *given++ = numbers ? *pooled : T(NAN);
      ++pooled;
    }
  }
  return room;
}

}  // namespace gradscore::GRADSCORE_LEVEL
