// Every kernel for batches. A maker takes shapes and options, plans, and returns a job; the job takes arrays, picks the
// instruction set, and shares the samples among threads.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "level.hpp"

namespace gradscore {

// Names of the levels that were built and that this processor has, fastest first.
std::vector<std::string> simd_levels();
std::string simd_level();
// Throws std::invalid_argument for a level that simd_levels() does not list.
void force_simd_level(const std::string& name);

// Take "winograd" or "scattered" products where they pay, or never: holds for what is planned from then on, so that
// benchmarks see what they gain. Throws std::invalid_argument for another name.
void allow_trick(const std::string& name, bool allowed);

// Attributes as of ONNX Conv: sizes by axis, pads = begin…, end….
struct Geometry {
  std::vector<Index> kernel, strides, dilations, pads;
  Index groups;
};

// A kernel with its tables, made once for arrays of one shape and called with batches of them. The arrays are
// contiguous, in the order that the comment beside its maker names, and hold T, but for `ids`, which are std::int64_t.
// `out` is double [batch, kAccumulator], but for unpooled_conv_input.
using Job = std::function<void(const void* const* arrays, Index batch, int threads, void* out)>;

template <class T>
Job outer_moments(Index inputs, Index outputs);  // a, delta

template <class T>
Job conv_moments(Index channels, Index filters, const std::vector<Index>& input, const std::vector<Index>& output,
                 const Geometry& geometry);  // a, delta

// The same where the derivative is known only behind a max pooling of `activation` [batch, filters, output…]. The
// tables of `pool` must outlive the job.
template <class T>
Job unpooled_conv_moments(Index channels, Index filters, const std::vector<Index>& input,
                          const std::vector<Index>& output, const Geometry& geometry,
                          const PoolPlan& pool);  // a, activation, pooled delta

// The derivative by that convolution's input, times 1 where `a` is positive, else `slope`: T, shaped as `a`.
template <class T>
Job unpooled_conv_input(Index channels, Index filters, const std::vector<Index>& input,
                        const std::vector<Index>& output, const Geometry& geometry, const PoolPlan& pool,
                        T slope);  // a, activation, pooled delta, weight

template <class T>
Job sequence_moments(const SequenceShape& shape);  // a, delta

template <class T>
Job direct_moments(Index count);  // g

template <class T>
Job position_sum_moments(Index channels, Index positions);  // delta

template <class T>
Job sequence_sum_moments(Index positions, Index channels);  // delta

// Negative ids count from the end. The job throws std::out_of_range for one that the vocabulary does not hold.
template <class T>
Job embedding_moments(Index positions, Index width, Index vocabulary);  // ids, delta

}  // namespace gradscore
