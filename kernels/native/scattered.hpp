// A convolution whose output's derivative is zero but for one position a window of a max pooling: products with what is
// there, and none with zeros; statistics of its weights' gradient, and the derivative by its input.
//
// The input lies rearranged, all numbers of a cell side by side, so that a position's receptive field is a few runs of
// neighbours, and vectors run along weights.
#pragma once

#include <cstddef>

#include "instruction_set.hpp"
#include "lanes.hpp"
#include "level.hpp"
#include "maxima.hpp"
#include "moments.hpp"
#include "pack.hpp"
#include "products.hpp"
#include "scratch.hpp"
#include "simd.hpp"
#include "tile.hpp"

namespace gradscore::GRADSCORE_LEVEL {

template <class T>
Index vectors_of(const LanePlan& lanes) {
  return lanes.run_count * ((lanes.run + kWidth<T> - 1) / kWidth<T>);
}

// Whether multiplying what is there takes no more vectors than multiplying everything.
template <class T>
bool scatter_pays(const ConvPlan& plan, const LanePlan& lanes, const PoolPlan& pool) {
  const Index dense = plan.positions * plan.channels * plan.kernel_size * ((plan.filters + kWidth<T> - 1) / kWidth<T>);
  return lanes.scattered && !lanes_are_groups<T>(plan) &&
         plan.filters * pool.window_count * vectors_of<T>(lanes) <= dense;
}

// to[i * pitch + r] = from[row[r] + i] for r < rows: the last vectors reach beyond the last cell.
template <class T, int W>
void side_by_side(const T* from, const Index* row, Index rows, Index length, T* to, Index pitch) {
  // What a vector holds beyond its rows is written over by the next cell, and by the block before it.
  for (Index r = round_up(rows, W) - W; r >= 0; r -= W) {
    const Index some = rows - r < W ? rows - r : W;
    interleave_block<T, W>([=](Index i) { return from + row[r + i]; }, some, length, to + r, pitch);
  }
}

template <class T>
void lay_out(const LanePlan& lanes, const T* from, T* to) {
  constexpr int W = kWidth<T>, half = W >= 8 ? W / 2 : W, quarter = W >= 16 ? W / 4 : half;
  const auto run = lanes.lanes > half      ? side_by_side<T, W>
                   : lanes.lanes > quarter ? side_by_side<T, half>
                                           : side_by_side<T, quarter>;
  run(from, lanes.lane, lanes.lanes, lanes.cells, to, lanes.lanes);
}

// G of F filters and R vectors of weights: out[(f * R + r) * W + lane].
template <class T, int F, int R>
void scattered_tile(const T* const* rows, const Place<T>* at, const T* given, Index windows, T* out) {
  constexpr int W = kWidth<T>;
  alignas(64) double totals[F * R * W];  // of several runs
  const T* row[R];
  GRADSCORE_UNROLL
  for (int r = 0; r < R; ++r) row[r] = rows[r];
  for (Index start = 0; start < windows; start += kRun) {
    const Index end = start + kRun < windows ? start + kRun : windows;
    Vector<T, W> sums[F][R];
    GRADSCORE_UNROLL
    for (int i = 0; i < F * R; ++i) sums[i / R][i % R] = fill<T, W>(0);
    for (Index w = start; w < end; ++w) {
      GRADSCORE_UNROLL
      for (int f = 0; f < F; ++f) {
        const Index from = at[f * windows + w];
        const Vector<T, W> g = fill<T, W>(given[f * windows + w]);
        GRADSCORE_UNROLL
        for (int r = 0; r < R; ++r) sums[f][r] = sums[f][r] + g * load<T, W>(row[r] + from);
      }
    }
    GRADSCORE_UNROLL
    for (int i = 0; i < F * R; ++i) {
      settle<T, W>(sums[i / R][i % R], windows <= kRun, start == 0, out + i * W, totals + i * W);
    }
  }
  for (int i = 0; windows > kRun && i < F * R * W; ++i) out[i] = static_cast<T>(totals[i]);
}

// G of one group's filters into the reducer.
template <class T>
class ScatteredTiles {
 public:
  ScatteredTiles(const LanePlan& lanes, const T* cells, TileReducer<T>& reducer)
      : lanes_(lanes), cells_(cells), reducer_(reducer) {}

  // at and given are [filters][windows].
  void reduce(const Place<T>* at, const T* given, Index filters, Index windows) {
    const Index vectors = vectors_of<T>(lanes_);
    Index at_run = 0, start = 0;
    for (Index first = 0; first < vectors; first += kRows) {
      const Index some = vectors - first < kRows ? vectors - first : kRows;
      const T* rows[kRows];
      Index valid[kRows];
      for (Index i = 0; i < kRows; ++i) rows[i] = i < some ? row(at_run, start, valid[i]) : rows[0];
      for (Index m = 0, used = 0; m < filters; m += used) {
        used = vectors < 4 && filters - m >= kFilters ? kFilters : 1;  // sums that do not wait for one another
        T* out = reducer_.room(used * kRows * W);
        const Index wide = run(used, some, rows, at + m * windows, given + m * windows, windows, out);
        reducer_.keep(closed_up(out, used, some, wide, valid));
      }
    }
  }

 private:
  static constexpr int W = kWidth<T>, kFilters = 4;

  // The vector that begins at `start` in a run; goes on to the next.
  const T* row(Index& run, Index& start, Index& valid) const {
    const T* found = cells_ + lanes_.runs[run] + start;
    const Index left = lanes_.run - start;
    valid = left < W ? left : W;
    start = left > W ? start + W : 0;
    run += left <= W;
    return found;
  }

  // The smallest tile of at least `some` vectors; returns how many it has.
  Index run(Index filters, Index some, const T* const* rows, const Place<T>* at, const T* given, Index windows,
            T* out) const {
    const auto with = [&](auto tile, Index wide) {
      tile(rows, at, given, windows, out);
      return wide;
    };
    if (filters > 1) {
      if (some == 1) return with(scattered_tile<T, kFilters, 1>, 1);
      if (some == 2) return with(scattered_tile<T, kFilters, 2>, 2);
      return with(scattered_tile<T, kFilters, 3>, 3);
    }
    constexpr int many = kRows < 9 ? kRows : 9;
    if (some <= 1) return with(scattered_tile<T, 1, 1>, 1);
    if (some <= 3) return with(scattered_tile<T, 1, 3>, 3);
    if (some <= 6) return with(scattered_tile<T, 1, 6>, 6);
    if (some <= many) return with(scattered_tile<T, 1, many>, many);
    return with(scattered_tile<T, 1, kRows>, kRows);
  }

  // Leave out the lanes that are no weights; returns how many numbers there are.
  static Index closed_up(T* out, Index filters, Index some, Index wide, const Index* valid) {
    Index kept = 0;
    for (Index f = 0; f < filters; ++f) {
      for (Index r = 0; r < some; ++r) {
        const T* from = out + (f * wide + r) * W;
        T* to = out + kept;
        for (Index lane = 0; to != from && lane < valid[r]; ++lane) to[lane] = from[lane];
        kept += valid[r];
      }
    }
    return kept;
  }

  const LanePlan& lanes_;
  const T* cells_;
  TileReducer<T>& reducer_;
};

// False if one of them is Inf or NaN.
template <class T>
bool all_finite(const T* values, Index count) {
  Vector<T, kWidth<T>> none = fill<T, kWidth<T>>(0);
  Index i = 0;
  for (; i + kWidth<T> <= count; i += kWidth<T>) {
    const Vector<T, kWidth<T>> x = load<T, kWidth<T>>(values + i);
    none = none + (x - x);
  }
  T left = 0;
  for (; i < count; ++i) left += values[i] - values[i];
  for (int lane = 0; lane < kWidth<T>; ++lane) left += none[lane];
  return left == 0;
}

// Numbers of a list of all windows: those of the last block reach beyond the last window.
template <class T>
Index listed(const PoolPlan& pool) {
  return pool.planes * pool.window_count + kLine<T>;
}

// The scratch memory of one sample: the windows' maxima and the derivatives given to them; the dense way's derivative
// at full resolution, and what `conv` needs; the scattered way's input among its padding, and rearranged.
template <class T>
struct UnpoolScratch {
  Layout layout;
  Region<Place<T>> at;
  Region<T> given, delta;
  Region<char> conv;
  Region<T> padded, cells;

  UnpoolScratch(const ConvPlan& plan, const LanePlan& lanes, const PoolPlan& pool)
      : at(layout.reserve<Place<T>>(listed<T>(pool))),
        given(layout.reserve<T>(listed<T>(pool))),
        delta(layout.reserve<T>(pool.planes, pool.plane)),
        conv(layout.reserve<char>(static_cast<Index>(conv_scratch<T>(plan)))),
        padded(layout.reserve<T>(plan.padded ? plan.channels : 0, plan.padded_plane)),
        cells(layout.reserve<T>(lanes.lanes * lanes.cells + 2 * kWidth<T>)) {}
};

template <class T>
std::size_t unpooled_conv_scratch(const ConvPlan& plan, const LanePlan& lanes, const PoolPlan& pool) {
  return UnpoolScratch<T>(plan, lanes, pool).layout.bytes();
}

template <class T>
void unpool(const PoolPlan& pool, const Place<T>* at, const T* given, T* delta) {
  for (Index i = 0; i < pool.planes * pool.plane; ++i) delta[i] = 0;
  for (Index i = 0; i < pool.planes; ++i, delta += pool.plane) {
    for (Index w = 0; w < pool.window_count; ++w) delta[*at++] += *given++;
  }
}

// The dense way serves where nothing is saved, and where Inf or NaN in the input must meet the zeros of delta.
template <class T>
void unpooled_conv(const ConvPlan& plan, const LanePlan& lanes, const PoolPlan& pool, const T* a, const T* activation,
                   const T* pooled, void* scratch, double* out) {
  const UnpoolScratch<T> room(plan, lanes, pool);
  Place<T>* at = room.at.in(scratch);
  if (!scatter_pays<T>(plan, lanes, pool) || !all_finite(a, plan.groups * plan.channels * plan.plane)) {
    T* delta = room.delta.in(scratch);
    unpool(pool, at, maxima(pool, lanes.own, activation, pooled, at, room.given.in(scratch)), delta);
    return conv(plan, a, delta, room.conv.in(scratch), out);
  }
  T *padded = room.padded.in(scratch), *cells = room.cells.in(scratch);
  const T* given = maxima(pool, lanes.place, activation, pooled, at, room.given.in(scratch));
  TileReducer<T> reducer;
  const Index each = plan.filters * pool.window_count;
  for (Index group = 0; group < plan.groups; ++group, a += plan.channels * plan.plane) {
    for (Index c = 0; plan.padded && c < plan.channels; ++c) {
      pad(plan, a + c * plan.plane, padded + c * plan.padded_plane);
    }
    lay_out(lanes, plan.padded ? padded : a, cells);
    ScatteredTiles<T>(lanes, cells, reducer)
        .reduce(at + group * each, given + group * each, plan.filters, pool.window_count);
  }
  reducer.finish().write(out);
}

// The scratch memory of one sample's derivative by the input: the windows' maxima and the derivatives given to them;
// the same sorted by position; the vectors of a receptive field; sums with a cell's channels side by side, and as
// planes.
template <class T>
struct InputScratch {
  Index pitch;  // distance of two planes
  Layout layout;
  Region<Place<T>> at;
  Region<T> given;
  Region<Place<T>> ends, rows;
  Region<T> values;
  Region<Index> vectors;
  Region<T> sums, planes;

  InputScratch(const ConvPlan& plan, const LanePlan& lanes, const PoolPlan& pool)
      : pitch(round_up(plan.padded_plane, kWidth<T>)),
        at(layout.reserve<Place<T>>(listed<T>(pool))),
        given(layout.reserve<T>(listed<T>(pool))),
        ends(layout.reserve<Place<T>>(plan.positions + 2)),
        rows(layout.reserve<Place<T>>(plan.filters, pool.window_count)),
        values(layout.reserve<T>(plan.filters, pool.window_count)),
        vectors(layout.reserve<Index>(lanes.run_count, round_up(lanes.run, kLine<T>))),
        sums(layout.reserve<T>(plan.channels * plan.padded_plane + 2 * kLine<T>)),
        planes(layout.reserve<T>(plan.channels, pitch)) {}
};

template <class T>
std::size_t unpooled_input_scratch(const ConvPlan& plan, const LanePlan& lanes, const PoolPlan& pool) {
  return InputScratch<T>(plan, lanes, pool).layout.bytes();
}

// The windows' derivatives sorted by the position of their maximum, so that each sum is read and written once a
// position, not once a window: those of position t are the ones from end[t] to end[t + 1]; `row` tells where their
// filter's weights begin. Lists would have the processor wait for each next link before it knows whether there is one.
template <class T>
struct Sorted {
  Place<T>*end, *row;
  T* given;

  void sort(const Place<T>* at, const T* values, Index positions, Index filters, Index windows, Index pitch) {
    for (Index t = 0; t < positions + 2; ++t) end[t] = 0;
    for (Index i = 0; i < filters * windows; ++i) ++end[at[i] + 2];
    for (Index t = 2; t < positions + 2; ++t) end[t] += end[t - 1];
    for (Index m = 0; m < filters; ++m) {
      for (Index w = 0; w < windows; ++w, ++at, ++values) {
        const Place<T> i = end[*at + 1]++;
        row[i] = static_cast<Place<T>>(m * pitch);
        given[i] = *values;
      }
    }
  }
};

// Add what a position's windows pass back to R vectors of its receptive field.
template <class T, int W, int R>
void add_windows(const Sorted<T>& sorted, Index t, const T* weight, const Index* to, T* field) {
  Vector<T, W> sums[R];
  GRADSCORE_UNROLL
  for (int r = 0; r < R; ++r) sums[r] = load<T, W>(field + to[r]);
  for (Index i = sorted.end[t], last = sorted.end[t + 1]; i < last; ++i) {
    const Vector<T, W> g = fill<T, W>(sorted.given[i]);
    const T* own = weight + sorted.row[i];
    GRADSCORE_UNROLL
    for (int r = 0; r < R; ++r) sums[r] = sums[r] + g * load<T, W>(own + r * W);
  }
  GRADSCORE_UNROLL
  for (int r = 0; r < R; ++r) store<T, W>(field + to[r], sums[r]);
}

// Add all windows. A run's weights are followed by zeros, up to a whole line: what a vector reaches beyond its run is
// written back as it was, and before the vector that it belongs to.
template <class T, int W>
void add_positions(const LanePlan& lanes, const Sorted<T>& sorted, Index positions, const T* weight, Index* to,
                   T* sums) {
  Index vectors = 0;
  for (Index i = 0; i < lanes.run_count; ++i) {
    for (Index lane = 0; lane < round_up(lanes.run, kLine<T>); lane += W) to[vectors++] = lanes.runs[i] + lane;
  }
  for (Index t = 0; t < positions; ++t) {
    for (Index v = 0, used = 0; v < vectors && sorted.end[t] < sorted.end[t + 1]; v += used) {
      const auto with = [&](auto add, Index count) {
        add(sorted, t, weight + v * W, to + v, sums + lanes.place[t]);
        return count;
      };
      constexpr int many = kRows < 9 ? kRows : 9;
      const Index left = vectors - v;
      used = left >= kRows  ? with(add_windows<T, W, kRows>, kRows)
             : left >= many ? with(add_windows<T, W, many>, many)
             : left >= 6    ? with(add_windows<T, W, 6>, 6)
             : left >= 3    ? with(add_windows<T, W, 3>, 3)
                            : with(add_windows<T, W, 1>, 1);
    }
  }
}

// The same in vectors that end where a cell does, if there are such: the next load then finds what was just stored.
template <class T>
void add_by_cells(const LanePlan& lanes, const Sorted<T>& sorted, Index positions, const T* weight, Index* to,
                  T* sums) {
  constexpr int W = kWidth<T>, half = W >= 8 ? W / 2 : W, quarter = W >= 16 ? W / 4 : half;
  const auto run = lanes.lanes % W == 0         ? add_positions<T, W>
                   : lanes.lanes % half == 0    ? add_positions<T, half>
                   : lanes.lanes % quarter == 0 ? add_positions<T, quarter>
                                                : add_positions<T, W>;
  run(lanes, sorted, positions, weight, to, sums);
}

// Times an activation's slope at `seen`: 1 where it is positive, else `slope`.
template <class T>
void sloped(const T* from, const T* seen, Index count, T slope, T* to) {
  for (Index i = 0; i < count; ++i) to[i] = seen[i] > 0 ? from[i] : from[i] * slope;
}

template <class T>
void unpooled_input(const ConvPlan& plan, const LanePlan& lanes, const PoolPlan& pool, const T* a, const T* activation,
                    const T* pooled, const T* weight, T slope, void* scratch, T* out) {
  const InputScratch<T> room(plan, lanes, pool);
  T *sums = room.sums.in(scratch), *planes = room.planes.in(scratch);
  Index* vectors = room.vectors.in(scratch);
  Sorted<T> sorted{room.ends.in(scratch), room.rows.in(scratch), room.values.in(scratch)};
  const Place<T>* at = room.at.in(scratch);
  const T* given = maxima(pool, lanes.own, activation, pooled, room.at.in(scratch), room.given.in(scratch));
  const Index each = plan.filters * pool.window_count, pitch = lanes.run_count * round_up(lanes.run, kLine<T>);
  for (Index group = 0; group < plan.groups; ++group, at += each, given += each) {
    for (Index i = 0; i < room.sums.count; ++i) sums[i] = 0;
    sorted.sort(at, given, plan.positions, plan.filters, pool.window_count, pitch);
    add_by_cells(lanes, sorted, plan.positions, weight + group * plan.filters * pitch, vectors, sums);
    interleave<T, kWidth<T>>(sums, plan.channels, plan.padded_plane, plan.channels, planes, room.pitch);
    for (Index c = 0; c < plan.channels; ++c, a += plan.plane, out += plan.plane) {
      const T* found = planes + c * room.pitch;
      if (!plan.padded) {
        sloped(found, a, plan.plane, slope, out);
        continue;
      }
      for (Index i = 0; i < plan.plane; ++i) out[i] = 0;
      for (Index i = 0; i < plan.segment_count; ++i) {
        const Segment& segment = plan.segments[i];
        sloped(found + segment.target, a + segment.source, segment.length, slope, out + segment.source);
      }
    }
  }
}

}  // namespace gradscore::GRADSCORE_LEVEL
