// Weight gradients of 3 × 3 convolutions at stride 1 by Winograd's F(3 × 3, 2 × 2) (Lavin and Gray 2016, *Fast
// Algorithms for Convolutional Neural Networks*).
//
// δ is cut into squares of 2 × 2 positions, which meet 4 × 4 inputs each. Along one axis, with d the inputs and f of δ,
//     m = ((d0 - d2) f0, (d1 + d2) (f0 + f1)/2, (d2 - d1) (f0 - f1)/2, (d3 - d1) f1)
//     g = (m0 + m1 + m2, m1 - m2, m1 + m2 + m3)
// takes four multiplications instead of six; along both axes 16 instead of 36. Sums over squares are sums of m: for
// each of the 16 points a product of two matrices, [filters, squares] · [squares, channels]. All factors are powers of
// two.
#pragma once

#include "instruction_set.hpp"
#include "lanes.hpp"
#include "level.hpp"
#include "moments.hpp"
#include "pack.hpp"
#include "scratch.hpp"
#include "simd.hpp"
#include "tile.hpp"

namespace gradscore::GRADSCORE_LEVEL {

constexpr int kPoints = 16;
constexpr Index kFewest = 8;  // channels, and filters, of a group below which the transforms cost what they save
constexpr Index kMostSquares = 1024;  // in a plane, above which the transformed planes leave the caches
constexpr Index kFewSquares = 8;      // in a plane, up to which a weight's points are summed side by side

constexpr Index squares_of(const ConvPlan& plan) { return (plan.rows + 1) / 2 * ((plan.columns + 1) / 2); }

// Squares that hang over the end are multiplied as well, and the transforms take as long as a few positions.
inline bool takes_winograd(const ConvPlan& plan) {
  const Index squares = squares_of(plan);
  return plan.rows > 0 && plan.channels >= kFewest && plan.filters >= kFewest && squares <= kMostSquares &&
         2 * 9 * plan.positions >= 3 * kPoints * squares;
}

// The scratch memory of one group's transformed planes.
template <class T>
struct WinogradScratch {
  static constexpr Index kLanes = round_up(kPanel, kWidth<T>);  // channels of a panel, side by side
  Index squares;
  bool few;                    // a square's points lie side by side, else a point's squares
  Index point, square, panel;  // distances of two points, two squares and two panels of inputs
  Layout layout;
  Region<T> padded, lanes;       // all channels' planes; one panel's, its channels side by side
  Region<T> inputs;              // all panels transformed
  Region<T> strip, derivatives;  // of one block of filters: as given, side by side; transformed

  explicit WinogradScratch(const ConvPlan& plan) : squares(squares_of(plan)), few(squares <= kFewSquares) {
    square = few ? kPoints * kLanes : kPanel;
    point = few ? kLanes : squares * kPanel + kWidth<T>;  // with room for what the last vector holds too much
    panel = few ? squares * square : kPoints * point;
    if (plan.padded) padded = layout.reserve<T>(plan.channels, plan.padded_plane);
    lanes = layout.reserve<T>(kLanes, plan.padded_plane);
    inputs = layout.reserve<T>((plan.channels + kPanel - 1) / kPanel, panel);
    strip = layout.reserve<T>(2 * kWidth<T>, plan.positions);
    derivatives = layout.reserve<T>(2 * kWidth<T> * kPoints, squares);
  }
};

template <class Lanes>
GRADSCORE_INLINE void transform_inputs(Lanes d0, Lanes d1, Lanes d2, Lanes d3, Lanes* m, int step) {
  m[0] = d0 - d2;
  m[step] = d1 + d2;
  m[2 * step] = d2 - d1;
  m[3 * step] = d3 - d1;
}

template <class Lanes>
GRADSCORE_INLINE void transform_derivatives(Lanes f0, Lanes f1, Lanes half, Lanes* m, int step) {
  const Lanes h0 = half * f0, h1 = half * f1;
  m[0] = f0;
  m[step] = h0 + h1;
  m[2 * step] = h0 - h1;
  m[3 * step] = f1;
}

template <class Lanes>
GRADSCORE_INLINE void transform_back(Lanes m0, Lanes m1, Lanes m2, Lanes m3, Lanes* g, int step) {
  const Lanes sum = m1 + m2;
  g[0] = m0 + sum;
  g[step] = m1 - m2;
  g[2 * step] = sum + m3;
}

// A panel's channels, which lie side by side at each point of their planes, transformed.
template <class T>
void panel_of_inputs(const ConvPlan& plan, const WinogradScratch<T>& room, const T* lanes, T* panel) {
  constexpr int W = kWidth<T>;
  using Lanes = Vector<T, W>;
  const T* first = lanes + plan.position[0] * room.kLanes;
  for (Index y = 0; y < plan.rows; y += 2) {
    for (Index x = 0; x < plan.columns; x += 2, panel += room.square) {
      for (Index part = 0; part < kPanel; part += W) {
        Lanes half[kPoints], whole[kPoints];
        GRADSCORE_UNROLL
        for (int j = 0; j < 4; ++j) {
          Lanes d[4];
          GRADSCORE_UNROLL
          for (int i = 0; i < 4; ++i) {
            const bool inside = y + i < plan.rows + 2 && x + j < plan.columns + 2;
            d[i] = inside ? load<T, W>(first + ((y + i) * plan.pitch + x + j) * room.kLanes + part) : fill<T, W>(0);
          }
          transform_inputs(d[0], d[1], d[2], d[3], half + j, 4);
        }
        GRADSCORE_UNROLL
        for (int i = 0; i < 4; ++i) {
          transform_inputs(half[4 * i], half[4 * i + 1], half[4 * i + 2], half[4 * i + 3], whole + 4 * i, 1);
        }
        // What a vector holds beyond the panel's channels is overwritten by the next square, or is not read.
        GRADSCORE_UNROLL
        for (int p = 0; p < kPoints; ++p) store<T, W>(panel + p * room.point + part, whole[p]);
      }
    }
  }
}

// A strip of derivatives [positions][pitch] transformed, to [squares][points][pitch] or [points][squares][pitch].
template <class T, int W>
void points_of_derivatives(const ConvPlan& plan, const WinogradScratch<T>& room, const T* strip, Index pitch, T* to) {
  using Lanes = Vector<T, W>;
  const Lanes none = fill<T, W>(0), half_of = fill<T, W>(T(0.5));
  const Index point = room.few ? pitch : room.squares * pitch, square = room.few ? kPoints * pitch : pitch;
  for (Index y = 0; y < plan.rows; y += 2) {
    for (Index x = 0; x < plan.columns; x += 2, to += square) {
      const T* from = strip + (y * plan.columns + x) * pitch;
      const bool below = y + 1 < plan.rows, right = x + 1 < plan.columns;
      for (Index part = 0; part < pitch; part += W) {
        const T* at = from + part;
        const Lanes f00 = load<T, W>(at), f01 = right ? load<T, W>(at + pitch) : none;
        const Lanes f10 = below ? load<T, W>(at + plan.columns * pitch) : none;
        const Lanes f11 = below && right ? load<T, W>(at + (plan.columns + 1) * pitch) : none;
        Lanes left[4], other[4], whole[kPoints];
        transform_derivatives(f00, f10, half_of, left, 1);
        transform_derivatives(f01, f11, half_of, other, 1);
        GRADSCORE_UNROLL
        for (int i = 0; i < 4; ++i) transform_derivatives(left[i], other[i], half_of, whole + 4 * i, 1);
        GRADSCORE_UNROLL
        for (int p = 0; p < kPoints; ++p) store<T, W>(to + p * point + part, whole[p]);
      }
    }
  }
}

// Nine weights of W filters from their 16 points, of which those of two neighbours lie `step` apart.
template <class T, int W>
GRADSCORE_INLINE void weights_of_points(const T* points, Index step, Vector<T, W> (&g)[9]) {
  using Lanes = Vector<T, W>;
  Lanes half[12];
  GRADSCORE_UNROLL
  for (int j = 0; j < 4; ++j) {
    transform_back(load<T, W>(points + j * step), load<T, W>(points + (4 + j) * step),
                   load<T, W>(points + (8 + j) * step), load<T, W>(points + (12 + j) * step), half + j, 4);
  }
  GRADSCORE_UNROLL
  for (int i = 0; i < 3; ++i) {
    transform_back(half[4 * i], half[4 * i + 1], half[4 * i + 2], half[4 * i + 3], g + 3 * i, 1);
  }
}

// Half of the points (two of their four rows) of R channels and W of P filters, summed in registers and transformed
// back along one axis: to[R][2][3][W].
template <class T, int W, int P, int R>
void half_of_points(const T* panel, const T* derivatives, Index squares, T* to) {
  using Lanes = Vector<T, W>;
  constexpr int kHalf = kPoints / 2;
  constexpr Index kLanes = WinogradScratch<T>::kLanes;
  Lanes sums[R][kHalf];
  GRADSCORE_UNROLL
  for (int r = 0; r < R; ++r) {
    GRADSCORE_UNROLL
    for (int p = 0; p < kHalf; ++p) sums[r][p] = fill<T, W>(0);
  }
  for (Index t = 0; t < squares; ++t, panel += kPoints * kLanes, derivatives += kPoints * P) {
    GRADSCORE_UNROLL
    for (int p = 0; p < kHalf; ++p) {
      const Lanes d = load<T, W>(derivatives + p * P);
      GRADSCORE_UNROLL
      for (int r = 0; r < R; ++r) sums[r][p] = sums[r][p] + fill<T, W>(panel[p * kLanes + r]) * d;
    }
  }
  GRADSCORE_UNROLL
  for (int r = 0; r < R; ++r) {
    GRADSCORE_UNROLL
    for (int i = 0; i < 2; ++i, to += 3 * W) {
      Lanes g[3];
      transform_back(sums[r][4 * i], sums[r][4 * i + 1], sums[r][4 * i + 2], sums[r][4 * i + 3], g, 1);
      GRADSCORE_UNROLL
      for (int k = 0; k < 3; ++k) store<T, W>(to + k * W, g[k]);
    }
  }
}

// A block of a group's filters against all panels of its channels.
template <class T>
struct WinogradBlock {
  const ConvPlan& plan;
  const WinogradScratch<T>& room;
  void* scratch;
  const T* delta;
  TileReducer<T>& reducer;

  template <int W, int V>
  void run(Index valid) {
    T *strip = room.strip.in(scratch), *derivatives = room.derivatives.in(scratch);
    interleave<T, W>(delta, plan.positions, valid, plan.positions, strip, W * V);
    points_of_derivatives<T, W>(plan, room, strip, W * V, derivatives);
    if (room.few) {
      for (Index lane = 0; lane < valid; lane += W) {
        in_registers<W, W * V>(derivatives + lane, valid - lane < W ? valid - lane : W);
      }
    } else {
      by_points<W, V>(valid);
    }
  }

  // Where squares are few, sums of all points would go to memory and come back for next to nothing.
  template <int W, int P>
  void in_registers(const T* derivatives, Index used) {
    constexpr int R = kRows / 4, kHalf = kPoints / 2;
    const T* panel = room.inputs.in(scratch);
    for (Index start = 0; start < plan.channels; start += kPanel, panel += room.panel) {
      const Index some = plan.channels - start < kPanel ? plan.channels - start : kPanel;
      for (Index row = 0; row < some; row += R) {
        alignas(64) T half[2][R * 6 * W];
        half_of_points<T, W, P, R>(panel + row, derivatives, room.squares, half[0]);
        half_of_points<T, W, P, R>(panel + row + kHalf * room.kLanes, derivatives + kHalf * P, room.squares, half[1]);
        const Index rows = some - row < R ? some - row : R;
        T* out = reducer.room(R * 9 * W + W);
        for (Index r = 0; r < rows; ++r) {
          GRADSCORE_UNROLL
          for (int k = 0; k < 3; ++k) {
            const T *first = half[0] + (r * 6 + k) * W, *last = half[1] + (r * 6 + k) * W;
            Vector<T, W> g[3];
            transform_back(load<T, W>(first), load<T, W>(first + 3 * W), load<T, W>(last), load<T, W>(last + 3 * W), g,
                           1);
            GRADSCORE_UNROLL
            for (int i = 0; i < 3; ++i, out += used) store<T, W>(out, g[i]);
          }
        }
        reducer.keep(rows * 9 * used);
      }
    }
  }

  template <int W, int V>
  void by_points(Index valid) {
    const T* panel = room.inputs.in(scratch);
    const T* derivatives = room.derivatives.in(scratch);
    for (Index start = 0; start < plan.channels; start += kPanel, panel += room.panel) {
      const Index some = plan.channels - start < kPanel ? plan.channels - start : kPanel;
      alignas(64) T points[kPoints * kPanel * W * V];
      for (int p = 0; p < kPoints; ++p) {
        Tiles<T, W, V, Input::kPanel>::products(panel + p * room.point, some, room.squares,
                                                derivatives + p * room.squares * W * V, points + p * kPanel * W * V);
      }
      for (Index r = 0; r < some; ++r) reduce<W, V>(points + r * W * V, valid);
    }
  }

  template <int W, int V>
  void reduce(const T* points, Index valid) {
    T* out = reducer.room(9 * W * V + W);
    for (Index lane = 0; lane < valid; lane += W) {
      const Index used = valid - lane < W ? valid - lane : W;
      Vector<T, W> g[9];
      weights_of_points<T, W>(points + lane, kPanel * W * V, g);
      GRADSCORE_UNROLL
      for (int k = 0; k < 9; ++k, out += used) store<T, W>(out, g[k]);
    }
    reducer.keep(9 * valid);
  }
};

template <class T>
void conv_by_winograd(const ConvPlan& plan, const T* a, const T* delta, void* scratch, TileReducer<T>& reducer) {
  constexpr int W = kWidth<T>;
  const WinogradScratch<T> room(plan);
  T *padded = room.padded.in(scratch), *lanes = room.lanes.in(scratch);
  for (Index group = 0; group < plan.groups; ++group, a += plan.channels * plan.plane) {
    for (Index c = 0; plan.padded && c < plan.channels; ++c) {
      pad(plan, a + c * plan.plane, padded + c * plan.padded_plane);
    }
    const T* planes = plan.padded ? padded : a;
    T* panel = room.inputs.in(scratch);
    for (Index c = 0; c < plan.channels; c += kPanel, panel += room.panel) {
      const Index some = plan.channels - c < kPanel ? plan.channels - c : kPanel;
      interleave<T, W>(planes + c * plan.padded_plane, plan.padded_plane, some, plan.padded_plane, lanes, room.kLanes);
      panel_of_inputs(plan, room, lanes, panel);
    }
    for (Index left = plan.filters, used = 0; left > 0; left -= used, delta += used * plan.positions) {
      used = one_block<T>(left, WinogradBlock<T>{plan, room, scratch, delta, reducer});
      used = used < left ? used : left;
    }
  }
}

}  // namespace gradscore::GRADSCORE_LEVEL
