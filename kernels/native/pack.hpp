// Packing: copies of one sample in which what a tile reads next lies next in memory. Planes go among their padding,
// rows become columns side by side.
#pragma once

#include <cstddef>
#include <cstring>
#include <utility>

#include "instruction_set.hpp"
#include "level.hpp"
#include "simd.hpp"

namespace gradscore::GRADSCORE_LEVEL {

#if defined(GRADSCORE_SHUFFLE)
// Alternate the first (Half = 0) or second (Half = 1) halves of two vectors: x0 y0 x1 y1 …
template <class T, int W, int Half, class Sequence>
struct Zip;
template <class T, int W, int Half, int... I>
struct Zip<T, W, Half, std::integer_sequence<int, I...>> {
  static GRADSCORE_INLINE Vector<T, W> of(Vector<T, W> x, Vector<T, W> y) {
    return __builtin_shufflevector(x, y, (Half * W / 2 + I / 2 + (I % 2) * W)...);
  }
};

// Transpose W vectors of W numbers: log2(W) rounds of zipping row i with row i + W / 2.
template <class T, int W>
GRADSCORE_INLINE void transpose(Vector<T, W> (&x)[W]) {
  using Lanes = std::make_integer_sequence<int, W>;
  GRADSCORE_UNROLL
  for (int round = 1; round < W; round *= 2) {
    Vector<T, W> y[W];
    GRADSCORE_UNROLL
    for (int i = 0; i < W / 2; ++i) {
      y[2 * i] = Zip<T, W, 0, Lanes>::of(x[i], x[i + W / 2]);
      y[2 * i + 1] = Zip<T, W, 1, Lanes>::of(x[i], x[i + W / 2]);
    }
    GRADSCORE_UNROLL
    for (int i = 0; i < W; ++i) x[i] = y[i];
  }
}
#else
template <class T, int W>
inline void transpose(Vector<T, W> (&x)[W]) {
  for (int i = 0; i < W; ++i) {
    for (int j = 0; j < i; ++j) {
      const T kept = x[i][j];
      x[i][j] = x[j][i];
      x[j][i] = kept;
    }
  }
}
#endif

// to[i * pitch + r] = row(r)[i] for r < rows, and 0 for rows <= r < W.
template <class T, int W, class Row>
void interleave_block(const Row& row, Index rows, Index length, T* to, Index pitch) {
  if (length < W) {
    for (Index i = 0; i < length; ++i) {
      for (Index r = 0; r < W; ++r) to[i * pitch + r] = r < rows ? row(r)[i] : T(0);
    }
    return;
  }
  for (Index start = 0; start < length; start += W) {
    const Index at = start + W <= length ? start : length - W;  // the last block overlaps the one before
    Vector<T, W> x[W];
    GRADSCORE_UNROLL
    for (int r = 0; r < W; ++r) x[r] = r < rows ? load<T, W>(row(r) + at) : fill<T, W>(0);
    transpose<T, W>(x);
    GRADSCORE_UNROLL
    for (int i = 0; i < W; ++i) store<T, W>(to + (at + i) * pitch, x[i]);
  }
}

// The same for up to `lanes` rows, a multiple of W, that lie `stride` apart.
template <class T, int W>
void interleave(const T* from, Index stride, Index rows, Index length, T* to, Index lanes) {
  for (Index r = 0; r < lanes; r += W) {
    const Index some = rows - r < W ? rows - r : W;
    interleave_block<T, W>([=](Index i) { return from + (r + i) * stride; }, some > 0 ? some : 0, length, to + r,
                           lanes);
  }
}

// to[i * pitch + r] = from[i * stride + r] for r < rows, and 0 for rows <= r < pitch: a strip of columns.
template <class T>
void strip(const T* from, Index stride, Index rows, Index length, T* to, Index pitch) {
  for (Index i = 0; i < length; ++i) {
    for (Index r = 0; r < rows; ++r) to[i * pitch + r] = from[i * stride + r];
    for (Index r = rows; r < pitch; ++r) to[i * pitch + r] = T(0);
  }
}

// Copy one channel's plane into the middle of its padded plane, whose border is zero already.
template <class T>
void pad(const ConvPlan& plan, const T* from, T* to) {
  for (Index s = 0; s < plan.segment_count; ++s) {
    const Segment& segment = plan.segments[s];
    std::memcpy(to + segment.target, from + segment.source, sizeof(T) * static_cast<std::size_t>(segment.length));
  }
}

}  // namespace gradscore::GRADSCORE_LEVEL
