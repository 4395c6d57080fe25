// Gradients that need no tile: closed forms, streams and sums over positions.
#pragma once

#include <cstdint>

#include "accumulator.hpp"
#include "instruction_set.hpp"
#include "level.hpp"
#include "moments.hpp"
#include "simd.hpp"

namespace gradscore::GRADSCORE_LEVEL {

template <class T>
Moments moments(const T* values, Index count) {
  Reducer<kDoubles> reducer;
  reducer.add(values, count);
  return reducer.finish();
}

template <class T>
void direct(const T* g, Index count, double* out) {
  moments(g, count).write(out);
}

// G = delta a^T: with the means b, c and central moments U_k, W_k (all divided by their counts) of delta and a.
template <class T>
void outer(const T* a, Index inputs, const T* delta, Index outputs, double* out) {
  const Moments x = moments(delta, outputs), y = moments(a, inputs);
  const double b = x.mean, c = y.mean, bb = b * b, cc = c * c;
  const double u2 = x.m2 / x.n, u3 = x.m3 / x.n, u4 = x.m4 / x.n;
  const double w2 = y.m2 / y.n, w3 = y.m3 / y.n, w4 = y.m4 / y.n;
  Moments g;
  g.n = x.n * y.n;
  g.abs_sum = x.abs_sum * y.abs_sum;
  g.mean = b * c;
  g.m2 = g.n * (bb * w2 + cc * u2 + u2 * w2);
  g.m3 = g.n * (bb * b * w3 + cc * c * u3 + u3 * w3 + 3 * (b * u2 * w3 + c * u3 * w2 + 2 * b * c * u2 * w2));
  g.m4 = g.n * (bb * bb * w4 + cc * cc * u4 + u4 * w4 + 6 * (bb * cc * u2 * w2 + bb * u2 * w4 + cc * u4 * w2) +
                12 * (bb * c * u2 * w3 + b * cc * u3 * w2 + b * c * u3 * w3) + 4 * (b * u3 * w4 + c * u4 * w3));
  const double products[] = {x.low * y.low, x.low * y.high, x.high * y.low, x.high * y.high};
  for (const double product : products) {
    g.low = product < g.low ? product : g.low;
    g.high = product > g.high ? product : g.high;
  }
  g.write(out);
}

template <class T>
double sum(const T* values, Index count) {
  Vector<double, kDoubles> sums = fill<double, kDoubles>(0);
  Index i = 0;
  for (; i + kDoubles <= count; i += kDoubles) sums += widen<kDoubles>(load<T, kDoubles>(values + i));
  double total = 0;
  for (int lane = 0; lane < kDoubles; ++lane) total += sums[lane];
  for (; i < count; ++i) total += static_cast<double>(values[i]);
  return total;
}

template <class T>
void position_sum(const T* delta, Index channels, Index positions, double* sums, double* out) {
  for (Index c = 0; c < channels; ++c) sums[c] = sum(delta + c * positions, positions);
  direct(sums, channels, out);
}

template <class T>
void add_row(const T* row, Index count, double* sums) {
  for (Index i = 0; i < count; ++i) sums[i] += static_cast<double>(row[i]);
}

inline void clear(double* sums, Index count) {
  for (Index i = 0; i < count; ++i) sums[i] = 0;
}

template <class T>
void sequence_sum(const T* delta, Index positions, Index channels, double* sums, double* out) {
  clear(sums, channels);
  for (Index t = 0; t < positions; ++t) add_row(delta + t * channels, channels, sums);
  direct(sums, channels, out);
}

template <class T>
void embedding(const std::int64_t* ids, const Index* order, Index positions, const T* delta, Index width,
               Index vocabulary, double* sums, double* out) {
  Reducer<kDoubles> reducer;
  Index touched = 0;
  for (Index i = 0; i < positions;) {
    const std::int64_t id = ids[order[i]];
    clear(sums, width);
    for (; i < positions && ids[order[i]] == id; ++i) add_row(delta + order[i] * width, width, sums);
    reducer.add(sums, width);
    ++touched;
  }
  Moments all = reducer.finish();
  if (touched < vocabulary) {
    Moments zeros;
    zeros.n = static_cast<double>(vocabulary - touched) * static_cast<double>(width);
    zeros.low = zeros.high = 0;
    all.merge(zeros);
  }
  all.write(out);
}

}  // namespace gradscore::GRADSCORE_LEVEL
