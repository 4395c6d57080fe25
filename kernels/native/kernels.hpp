// Every kernel for a batch: plans the offsets once, chooses the level and shares the samples among threads.
#pragma once

#include <string>
#include <vector>

#include "level.hpp"

namespace gradscore {

// Names of the levels that were built and that this processor has, fastest first.
std::vector<std::string> simd_levels();
std::string simd_level();
// Throws std::invalid_argument for a level that simd_levels() does not list.
void force_simd_level(const std::string& name);

// Attributes as of ONNX Conv: sizes by axis, pads = begin…, end….
struct Geometry {
  std::vector<Index> kernel, strides, dilations, pads;
  Index groups;
};

// All arrays are contiguous; `out` is [batch, kAccumulator].
template <class T>
void outer_moments(const T* a, const T* delta, Index batch, Index inputs, Index outputs, int threads, double* out);

template <class T>
void conv_moments(const T* a, const T* delta, Index batch, Index channels, Index filters,
                  const std::vector<Index>& input, const std::vector<Index>& output, const Geometry& geometry,
                  int threads, double* out);

// The same where the derivative is known only behind a max pooling of `activation` [batch, filters, output…].
template <class T>
void unpooled_conv_moments(const T* a, const T* activation, const T* pooled, Index batch, Index channels, Index filters,
                           const std::vector<Index>& input, const std::vector<Index>& output, const Geometry& geometry,
                           const PoolPlan& pool, int threads, double* out);

// The derivative by that convolution's input, times 1 where `a` is positive, else `slope`: `out` is shaped as `a`.
template <class T>
void unpooled_conv_input(const T* a, const T* activation, const T* pooled, const T* weight, T slope, Index batch,
                         Index channels, Index filters, const std::vector<Index>& input,
                         const std::vector<Index>& output, const Geometry& geometry, const PoolPlan& pool, int threads,
                         T* out);

template <class T>
void sequence_moments(const T* a, const T* delta, Index batch, const SequenceShape& shape, int threads, double* out);

template <class T>
void direct_moments(const T* g, Index batch, Index count, int threads, double* out);

template <class T>
void position_sum_moments(const T* delta, Index batch, Index channels, Index positions, int threads, double* out);

template <class T>
void sequence_sum_moments(const T* delta, Index batch, Index positions, Index channels, int threads, double* out);

template <class T>
void embedding_moments(const std::int64_t* ids, const T* delta, Index batch, Index positions, Index width,
                       Index vocabulary, int threads, double* out);

}  // namespace gradscore
