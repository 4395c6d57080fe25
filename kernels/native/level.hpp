// What every level (instruction set) offers: for each kernel a function that reduces one sample; and the plans that
// these functions read. No code here, as sources of all levels include it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gradscore {

using Index = std::ptrdiff_t;

constexpr int kAccumulator = 8;  // n, sum |g|, mean, M2, M3, M4, min, max
constexpr Index kPanel = 12;     // neighbouring inputs of a sequence that are packed side by side

// Numbers of a cache line, which no vector is longer than.
template <class T>
constexpr Index kLine = 64 / sizeof(T);

// A run of input elements and where it lies in the padded plane.
struct Segment {
  Index source, target, length;
};

// A convolution of any dimension as two tables of offsets: the input that weight r meets at position t lies at
// row[r] + position[t]. Offsets count elements of one group's channels, in the padded copy where there is one.
struct ConvPlan {
  Index groups, channels, filters;  // channels and filters are those of one group
  Index kernel_size, positions;
  Index plane;         // elements of one input channel as given
  Index padded_plane;  // distance of two channels in what the tables address: `plane` if that is the input itself
  bool padded;         // the tables address a padded copy, not the input itself
  const Segment* segments;
  Index segment_count;
  const Index* row;       // [channels * kernel_size]
  const Index* position;  // [positions]
  // Of a 3 × 3 convolution of planes at stride 1: rows and columns of the positions, and the distance of two rows in
  // what the tables address. All 0 for any other, and where the Winograd trick is switched off.
  Index rows, columns, pitch;
};

// Max pooling of planes of any dimension. Windows that meet nothing but padding are not listed.
struct PoolPlan {
  Index planes, plane, pooled_plane;
  Index square_columns;  // columns of a plane pooled in squares of four, side by side; 0 for any other pooling
  Index window_count;
  // The following for other poolings than in squares only.
  Index kernel_size;
  const Index* window;  // [window_count], numbers in the pooled plane
  const Index* cell;    // [window_count][kernel_size], in row-major order
};

// A convolution's input with the numbers of each cell side by side. The receptive field of position t is made of runs
// of `run` neighbours that begin at place[t] + runs[…].
struct LanePlan {
  Index lanes, cells;  // numbers of a cell, and cells that some position meets
  const Index* lane;  // [lanes], where the first cell's numbers lie in a group's channels, as ConvPlan's tables have it
  const Index* place;  // [positions]
  const Index* own;    // [positions], each one's own number
  Index run, run_count;
  const Index* runs;  // [run_count]
  bool scattered;     // whether products with zeros may be left out
};

struct SequenceShape {
  Index positions, inputs, outputs;
};

// One function for every kernel, which reduces one sample to its accumulator `out`. Where a function takes scratch
// memory, the one before it tells how many bytes: a block as Layout in scratch.hpp lays it out, all zero before the
// first sample and then left as it is from sample to sample.
template <class T>
struct Kernels {
  void (*outer)(const T* a, Index inputs, const T* delta, Index outputs, double* out);
  std::size_t (*conv_scratch)(const ConvPlan& plan);
  void (*conv)(const ConvPlan& plan, const T* a, const T* delta, void* scratch, double* out);
  // The same where delta is pooled at each window's first maximum, and 0 elsewhere.
  std::size_t (*unpooled_conv_scratch)(const ConvPlan& plan, const LanePlan& lanes, const PoolPlan& pool);
  void (*unpooled_conv)(const ConvPlan& plan, const LanePlan& lanes, const PoolPlan& pool, const T* a,
                        const T* activation, const T* pooled, void* scratch, double* out);
  // That delta's derivative by a, times 1 where a is positive, else `slope`; no accumulator. `weight` is
  // [filters][runs][run, up to a whole number of kLine<T>].
  std::size_t (*unpooled_input_scratch)(const ConvPlan& plan, const LanePlan& lanes, const PoolPlan& pool);
  void (*unpooled_input)(const ConvPlan& plan, const LanePlan& lanes, const PoolPlan& pool, const T* a,
                         const T* activation, const T* pooled, const T* weight, T slope, void* scratch, T* out);
  std::size_t (*sequence_scratch)(const SequenceShape& shape);
  void (*sequence)(const SequenceShape& shape, const T* a, const T* delta, void* scratch, double* out);
  void (*direct)(const T* g, Index count, double* out);
  void (*position_sum)(const T* delta, Index channels, Index positions, double* sums, double* out);
  void (*sequence_sum)(const T* delta, Index positions, Index channels, double* sums, double* out);
  // `order` lists a sample's positions sorted by id, `ids` its ids by position; `sums` holds one row of the table.
  void (*embedding)(const std::int64_t* ids, const Index* order, Index positions, const T* delta, Index width,
                    Index vocabulary, double* sums, double* out);
};

struct Level {
  const char* name;
  Kernels<float> single;
  Kernels<double> twice;
};

extern const Level kPortable;
#if defined(GRADSCORE_AVX2)
extern const Level kAvx2;
#endif
#if defined(GRADSCORE_AVX512)
extern const Level kAvx512;
#endif

}  // namespace gradscore
