// Gradients that are a sum of products over positions: of convolutions, and of dense layers over a sequence. Each packs
// a sample, goes through its outputs a block of lanes at a time, and reduces the tiles.
#pragma once

#include <cstddef>

#include "instruction_set.hpp"
#include "lanes.hpp"
#include "level.hpp"
#include "moments.hpp"
#include "pack.hpp"
#include "scratch.hpp"
#include "tile.hpp"
#include "winograd.hpp"

namespace gradscore::GRADSCORE_LEVEL {

// With few outputs per group, lanes are groups rather than outputs.
template <class T>
bool lanes_are_groups(const ConvPlan& plan) {
  const Index groups = plan.groups < kWidth<T> ? plan.groups : kWidth<T>;
  return groups > 2 * plan.filters;
}

// The scratch memory of a convolution without Winograd's transforms: planes among their padding, planes of several
// groups side by side, and the derivatives of one block of lanes.
template <class T>
struct ConvScratch {
  Layout layout;
  Region<T> padded, lanes, strip;

  explicit ConvScratch(const ConvPlan& plan) {
    const bool by_groups = lanes_are_groups<T>(plan);
    const Index planes = plan.channels * (by_groups ? kWidth<T> : 1);
    if (plan.padded) padded = layout.reserve<T>(planes, plan.padded_plane);
    if (by_groups) lanes = layout.reserve<T>(planes, plan.padded_plane);
    strip = layout.reserve<T>(2 * kWidth<T>, plan.positions);
  }
};

template <class T>
std::size_t conv_scratch(const ConvPlan& plan) {
  return takes_winograd(plan) ? WinogradScratch<T>(plan).layout.bytes() : ConvScratch<T>(plan).layout.bytes();
}

// One group's outputs, a block of lanes at a time.
template <class T>
struct GroupBlock {
  const ConvPlan& plan;
  const T* a;
  const T* delta;
  T* strip;
  TileReducer<T>& reducer;

  template <int W, int V>
  void run(Index valid) {
    interleave<T, W>(delta, plan.positions, valid, plan.positions, strip, W * V);
    Tiles<T, W, V, Input::kShared>::reduce(a, plan.row, plan.channels * plan.kernel_size, plan.position, plan.positions,
                                           strip, valid, reducer);
  }
};

template <class T>
void conv_by_outputs(const ConvPlan& plan, const T* a, const T* delta, void* scratch, TileReducer<T>& reducer) {
  const ConvScratch<T> room(plan);
  T *padded = room.padded.in(scratch), *strip = room.strip.in(scratch);
  for (Index group = 0; group < plan.groups; ++group, a += plan.channels * plan.plane) {
    for (Index c = 0; plan.padded && c < plan.channels; ++c) {
      pad(plan, a + c * plan.plane, padded + c * plan.padded_plane);
    }
    for (Index left = plan.filters, used = 0; left > 0; left -= used) {
      used = one_block<T>(left, GroupBlock<T>{plan, plan.padded ? padded : a, delta, strip, reducer});
      used = used < left ? used : left;
      delta += used * plan.positions;
    }
  }
}

template <class T>
void conv_by_groups(const ConvPlan& plan, const T* a, const T* delta, void* scratch, TileReducer<T>& reducer) {
  constexpr int W = kWidth<T>;
  const Index weights = plan.channels * plan.kernel_size;
  const ConvScratch<T> room(plan);
  T *padded = room.padded.in(scratch), *lanes = room.lanes.in(scratch), *strip = room.strip.in(scratch);
  for (Index group = 0; group < plan.groups; group += W) {
    const Index valid = plan.groups - group < W ? plan.groups - group : W;
    const T* source = a + group * plan.channels * plan.plane;
    for (Index c = 0; plan.padded && c < valid * plan.channels; ++c) {
      pad(plan, source + c * plan.plane, padded + c * plan.padded_plane);
    }
    for (Index c = 0; c < plan.channels; ++c) {
      interleave<T, W>((plan.padded ? padded : source) + c * plan.padded_plane, plan.channels * plan.padded_plane,
                       valid, plan.padded_plane, lanes + c * plan.padded_plane * W, W);
    }
    for (Index filter = 0; filter < plan.filters; ++filter) {
      interleave<T, W>(delta + (group * plan.filters + filter) * plan.positions, plan.filters * plan.positions, valid,
                       plan.positions, strip, W);
      Tiles<T, W, 1, Input::kPerLane>::reduce(lanes, plan.row, weights, plan.position, plan.positions, strip, valid,
                                              reducer);
    }
  }
}

template <class T>
void conv(const ConvPlan& plan, const T* a, const T* delta, void* scratch, double* out) {
  TileReducer<T> reducer;
  if (takes_winograd(plan)) {
    conv_by_winograd(plan, a, delta, scratch, reducer);
  } else if (lanes_are_groups<T>(plan)) {
    conv_by_groups(plan, a, delta, scratch, reducer);
  } else {
    conv_by_outputs(plan, a, delta, scratch, reducer);
  }
  reducer.finish().write(out);
}

// The scratch memory of a sequence: its inputs in panels [positions][kPanel], and the derivatives of one block of
// lanes.
template <class T>
struct SequenceScratch {
  Layout layout;
  Region<T> panels, columns;

  explicit SequenceScratch(const SequenceShape& shape)
      : panels(layout.reserve<T>(round_up(shape.inputs, kPanel), shape.positions)),
        columns(layout.reserve<T>(2 * kWidth<T>, shape.positions)) {}
};

template <class T>
std::size_t sequence_scratch(const SequenceShape& shape) {
  return SequenceScratch<T>(shape).layout.bytes();
}

// A block of a sequence's outputs against all its inputs, which lie packed in panels [positions][kPanel].
template <class T>
struct SequenceBlock {
  const SequenceShape& shape;
  const T* panels;
  const T* delta;
  T* columns;
  TileReducer<T>& reducer;

  template <int W, int V>
  void run(Index valid) {
    strip(delta, shape.outputs, valid, shape.positions, columns, Index{W * V});
    for (Index start = 0; start < shape.inputs; start += kPanel) {
      const Index some = shape.inputs - start < kPanel ? shape.inputs - start : kPanel;
      Tiles<T, W, V, Input::kPanel>::reduce(panels + start * shape.positions, nullptr, some, nullptr, shape.positions,
                                            columns, valid, reducer);
    }
  }
};

template <class T>
void sequence(const SequenceShape& shape, const T* a, const T* delta, void* scratch, double* out) {
  const SequenceScratch<T> room(shape);
  T *panels = room.panels.in(scratch), *columns = room.columns.in(scratch);
  TileReducer<T> reducer;
  for (Index start = 0; start < shape.inputs; start += kPanel) {
    const Index some = shape.inputs - start < kPanel ? shape.inputs - start : kPanel;
    strip(a + start, shape.inputs, some, shape.positions, panels + start * shape.positions, kPanel);
  }
  for (Index left = shape.outputs, used = 0; left > 0; left -= used, delta += used) {
    used = one_block<T>(left, SequenceBlock<T>{shape, panels, delta, columns, reducer});
    used = used < left ? used : left;
  }
  reducer.finish().write(out);
}

}  // namespace gradscore::GRADSCORE_LEVEL
