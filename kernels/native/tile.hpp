// Tiles: blocks of the gradient G = sum_t delta_t a_t^T, summed over positions t in registers, then handed to the
// reducer and forgotten. Most of all time is spent here.
#pragma once

#include "instruction_set.hpp"
#include "level.hpp"
#include "moments.hpp"
#include "simd.hpp"

namespace gradscore::GRADSCORE_LEVEL {

constexpr Index kRun = 128;  // positions summed in T before the sums are folded into float64

// What weight r meets at a position: one number for all lanes; or (grouped convolutions) one number per lane; or one
// for all lanes that lies beside those of the other rows, in a panel [positions][kPanel], which needs no table.
enum class Input { kShared, kPerLane, kPanel };

// Keep the sums of a run of positions: as they are if it is the only one, else in float64.
template <class T, int W>
GRADSCORE_INLINE void settle(Vector<T, W> sums, bool only, bool first, T* out, double* total) {
  if (only) {
    store<T, W>(out, sums);
  } else {
    const auto wide = widen<W>(sums);
    store<double, W>(total, first ? wide : wide + load<double, W>(total));
  }
}

// R rows (weights) times V vectors of W lanes (outputs, or groups): out[r * V * W + lane] = G.
template <class T, int W, int V, int R, Input kind>
void tile(const T* const* rows, const Index* position, Index positions, const T* delta, T* out) {
  using Lanes = Vector<T, W>;
  alignas(64) double totals[R * V * W];  // of several runs
  const T* row[R];
  GRADSCORE_UNROLL
  for (int r = 0; r < R; ++r) row[r] = kind == Input::kPanel ? rows[0] + r : rows[r];
  for (Index start = 0; start < positions; start += kRun) {
    const Index end = start + kRun < positions ? start + kRun : positions;
    Lanes sums[R][V];
    GRADSCORE_UNROLL
    for (int r = 0; r < R; ++r) {
      GRADSCORE_UNROLL
      for (int v = 0; v < V; ++v) sums[r][v] = fill<T, W>(0);
    }
    for (Index t = start; t < end; ++t, delta += V * W) {
      const Index at = kind == Input::kPanel ? t * kPanel : kind == Input::kShared ? position[t] : position[t] * W;
      Lanes d[V];
      GRADSCORE_UNROLL
      for (int v = 0; v < V; ++v) d[v] = load<T, W>(delta + v * W);
      GRADSCORE_UNROLL
      for (int r = 0; r < R; ++r) {
        const Lanes a = kind == Input::kPerLane ? load<T, W>(row[r] + at) : fill<T, W>(row[r][at]);
        GRADSCORE_UNROLL
        for (int v = 0; v < V; ++v) sums[r][v] = sums[r][v] + a * d[v];
      }
    }
    GRADSCORE_UNROLL
    for (int r = 0; r < R; ++r) {
      GRADSCORE_UNROLL
      for (int v = 0; v < V; ++v) {
        const int at = (r * V + v) * W;
        settle<T, W>(sums[r][v], positions <= kRun, start == 0, out + at, totals + at);
      }
    }
  }
  for (int i = 0; positions > kRun && i < R * V * W; ++i) out[i] = static_cast<T>(totals[i]);
}

template <class T, int W, int V, Input kind>
class Tiles {
 public:
  // G of the first `count` rows of a panel, to out [count][V * W]. delta is [positions][V * W].
  static void products(const T* panel, Index count, Index positions, const T* delta, T* out) {
    static_assert(kind == Input::kPanel);
    for (Index r = 0; r < count; r += kRows) {
      const T* rows[1] = {panel + r};
      choose(count - r)(rows, nullptr, positions, delta, out + r * V * W);
    }
  }

  // G of all `count` rows and `valid` lanes, tile by tile into the reducer. A panel needs no tables.
  static void reduce(const T* a, const Index* row, Index count, const Index* position, Index positions, const T* delta,
                     Index valid, TileReducer<T>& reducer) {
    for (Index r = 0; r < count; r += kRows) {
      const Index some = count - r < kRows ? count - r : kRows;
      const T* rows[kRows] = {a + r};
      for (Index i = 0; kind != Input::kPanel && i < kRows; ++i) {
        rows[i] = a + row[r + (i < some ? i : 0)] * (kind == Input::kPerLane ? W : 1);
      }
      T* out = reducer.room(kRows * V * W);
      choose(some)(rows, position, positions, delta, out);
      if (valid < V * W) {
        for (Index i = 1; i < some; ++i) {
          for (Index lane = 0; lane < valid; ++lane) out[i * valid + lane] = out[i * V * W + lane];
        }
      }
      reducer.keep(some * valid);
    }
  }

 private:
  using Function = void (*)(const T* const*, const Index*, Index, const T*, T*);

  // The smallest tile of at least `rows` rows; what it computes too much is not looked at.
  static Function choose(Index rows) {
    constexpr int kNine = kRows < 9 ? kRows : 9;
    if (rows <= 1) return tile<T, W, V, 1, kind>;
    if (rows <= 2) return tile<T, W, V, 2, kind>;
    if (rows <= 3) return tile<T, W, V, 3, kind>;
    if (rows <= 4) return tile<T, W, V, 4, kind>;
    if (rows <= 6 || kRows <= 6) return tile<T, W, V, 6, kind>;
    if (rows <= kNine) return tile<T, W, V, kNine, kind>;
    return tile<T, W, V, kRows, kind>;
  }
};

}  // namespace gradscore::GRADSCORE_LEVEL
