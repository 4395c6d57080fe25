// Jobs: kernels for batches, and nothing that depends on the instruction set. Samples whose sums need float64 are found
// here and summed once more.
#include "kernels.hpp"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "level.hpp"
#include "parallel.hpp"
#include "plan.hpp"
#include "scratch.hpp"

namespace gradscore {
namespace {

using common::Layout;
using common::Region;

std::vector<const Level*> levels_here() {
  std::vector<const Level*> levels;
#if defined(GRADSCORE_AVX2)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#if defined(GRADSCORE_AVX512)
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
  if (avx2 && avx512) levels.push_back(&kAvx512);
#endif
  if (avx2) levels.push_back(&kAvx2);
#endif
  levels.push_back(&kPortable);
  return levels;
}

const std::vector<const Level*>& levels() {
  static const std::vector<const Level*> here = levels_here();
  return here;
}

std::atomic<const Level*>& current() {
  static std::atomic<const Level*> level{levels().front()};
  return level;
}

template <class T>
const Kernels<T>& kernels() {
  if constexpr (std::is_same_v<T, float>) {
    return current().load()->single;
  } else {
    return current().load()->twice;
  }
}

// Where a sample's accumulators go.
double* row(void* out, Index b) { return static_cast<double*>(out) + b * kAccumulator; }

template <class T>
const T* array(const void* const* arrays, std::size_t place) {
  return static_cast<const T*>(arrays[place]);
}

// Sums over positions in float32 are off by 1e-7 or so of their size, each by its own. Over many numbers that averages
// out: skewness and kurtosis are then off by less than 1e-5 |mean| / sqrt(M2) (measured; Winograd's transforms cost the
// most). Where that may be too much, a sample is summed once more in float64; and all of them are at once where numbers
// are so few that the terms of every sum may happen to cancel.
constexpr double kFar = 0.25;        // mean² / M2
constexpr Index kFewNumbers = 32;    // of a gradient
constexpr Index kWidened = 1 << 20;  // numbers that are made float64 at a time, unless one sample has more

bool rounding_shows(const double* accumulator) { return accumulator[2] * accumulator[2] > kFar * accumulator[3]; }

// Run a job on the samples listed, of which each array holds `sizes` numbers.
void run_widened(const Job& job, const void* const* arrays, const std::vector<Index>& sizes, const Index* samples,
                 std::size_t count, int threads, void* out) {
  std::vector<std::vector<double>> wide(sizes.size());
  std::vector<const void*> given;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    wide[i].reserve(count * static_cast<std::size_t>(sizes[i]));
    for (std::size_t s = 0; s < count; ++s) {
      const float* from = array<float>(arrays, i) + samples[s] * sizes[i];
      wide[i].insert(wide[i].end(), from, from + sizes[i]);
    }
    given.push_back(wide[i].data());
  }
  std::vector<double> rows(count * kAccumulator);
  job(given.data(), static_cast<Index>(count), threads, rows.data());
  for (std::size_t s = 0; s < count; ++s) std::copy_n(&rows[s * kAccumulator], kAccumulator, row(out, samples[s]));
}

// A job in T for gradients of so many numbers, and in float64 for the samples that need it.
template <class T>
Job exact_where_needed(const Job& job, const Job& exact, Index numbers, const std::vector<Index>& sizes) {
  if constexpr (std::is_same_v<T, double>) {
    return exact;
  } else {
    const Index numbers_in_all = std::accumulate(sizes.begin(), sizes.end(), Index{0});
    const auto step = static_cast<std::size_t>(std::max<Index>(1, kWidened / numbers_in_all));
    return [=](const void* const* arrays, Index batch, int threads, void* out) {
      if (numbers >= kFewNumbers) job(arrays, batch, threads, out);
      std::vector<Index> samples;
      for (Index b = 0; b < batch; ++b) {
        if (numbers < kFewNumbers || rounding_shows(row(out, b))) samples.push_back(b);
      }
      for (std::size_t start = 0; start < samples.size(); start += step) {
        const std::size_t count = std::min(step, samples.size() - start);
        run_widened(exact, arrays, sizes, &samples[start], count, threads, out);
      }
    };
  }
}

// A sum over positions of delta [rows, columns], for each of its channels.
template <class T>
Job sum_moments(decltype(Kernels<T>::position_sum) Kernels<T>::* kernel, Index rows, Index columns, Index channels) {
  return [=](const void* const* arrays, Index batch, int threads, void* out) {
    const auto run = kernels<T>().*kernel;
    const T* delta = array<T>(arrays, 0);
    const Index size = rows * columns;
    Layout layout;
    const Region<double> sums = layout.reserve<double>(channels);
    for_each_sample(batch, size, threads, layout.bytes(), [&](Index b, void* scratch) {
      run(delta + b * size, rows, columns, sums.in(scratch), row(out, b));
    });
  };
}

}  // namespace

std::vector<std::string> simd_levels() {
  std::vector<std::string> names;
  for (const Level* level : levels()) names.emplace_back(level->name);
  return names;
}

std::string simd_level() { return current().load()->name; }

void force_simd_level(const std::string& name) {
  for (const Level* level : levels()) {
    if (name == level->name) {
      current().store(level);
      return;
    }
  }
  throw std::invalid_argument("no SIMD level " + name + " here");
}

void allow_trick(const std::string& name, bool allowed) {
  if (name != "winograd" && name != "scattered") throw std::invalid_argument("no trick " + name);
  (name == "winograd" ? tricks.winograd : tricks.scattered) = allowed;
}

template <class T>
Job outer_moments(Index inputs, Index outputs) {
  return [=](const void* const* arrays, Index batch, int threads, void* out) {
    const auto run = kernels<T>().outer;
    const T *a = array<T>(arrays, 0), *delta = array<T>(arrays, 1);
    for_each_sample(batch, 4 * (inputs + outputs), threads, 0,
                    [&](Index b, void*) { run(a + b * inputs, inputs, delta + b * outputs, outputs, row(out, b)); });
  };
}

namespace {

Index numbers_in(const ConvPlan& plan) { return plan.groups * plan.filters * plan.channels * plan.kernel_size; }
Index inputs_in(const ConvPlan& plan) { return plan.groups * plan.channels * plan.plane; }
Index outputs_in(const ConvPlan& plan) { return plan.groups * plan.filters * plan.positions; }

template <class T>
Job conv_job(const std::shared_ptr<const ConvTables>& tables) {
  return [=](const void* const* arrays, Index batch, int threads, void* out) {
    const ConvPlan& plan = tables->plan();
    const Kernels<T>& use = kernels<T>();
    const T *a = array<T>(arrays, 0), *delta = array<T>(arrays, 1);
    const Index a_size = inputs_in(plan), delta_size = outputs_in(plan);
    const Index cost = delta_size * plan.channels * plan.kernel_size / 8;
    for_each_sample(batch, cost, threads, use.conv_scratch(plan), [&](Index b, void* scratch) {
      use.conv(plan, a + b * a_size, delta + b * delta_size, scratch, row(out, b));
    });
  };
}

template <class T>
Job unpooled_conv_job(const std::shared_ptr<const ConvTables>& tables, const std::shared_ptr<const LaneTables>& lanes,
                      const PoolPlan& pool) {
  return [=](const void* const* arrays, Index batch, int threads, void* out) {
    const ConvPlan& plan = tables->plan();
    const Kernels<T>& use = kernels<T>();
    const T *a = array<T>(arrays, 0), *activation = array<T>(arrays, 1), *pooled = array<T>(arrays, 2);
    const Index a_size = inputs_in(plan), delta_size = outputs_in(plan), pooled_size = pool.planes * pool.pooled_plane;
    const Index cost = delta_size * (plan.channels * plan.kernel_size + 16) / 8;
    const std::size_t bytes = use.unpooled_conv_scratch(plan, lanes->plan(), pool);
    for_each_sample(batch, cost, threads, bytes, [&](Index b, void* scratch) {
      use.unpooled_conv(plan, lanes->plan(), pool, a + b * a_size, activation + b * delta_size,
                        pooled + b * pooled_size, scratch, row(out, b));
    });
  };
}

template <class T>
Job sequence_job(const SequenceShape& shape) {
  return [=](const void* const* arrays, Index batch, int threads, void* out) {
    const Kernels<T>& use = kernels<T>();
    const T *a = array<T>(arrays, 0), *delta = array<T>(arrays, 1);
    const Index a_size = shape.positions * shape.inputs, delta_size = shape.positions * shape.outputs;
    const Index cost = a_size * shape.outputs / 8;
    const std::size_t bytes = use.sequence_scratch(shape);
    for_each_sample(batch, cost, threads, bytes, [&](Index b, void* scratch) {
      use.sequence(shape, a + b * a_size, delta + b * delta_size, scratch, row(out, b));
    });
  };
}

}  // namespace

template <class T>
Job conv_moments(Index channels, Index filters, const std::vector<Index>& input, const std::vector<Index>& output,
                 const Geometry& geometry) {
  const auto tables = std::make_shared<const ConvTables>(channels, filters, input, output, geometry);
  const ConvPlan& plan = tables->plan();
  return exact_where_needed<T>(conv_job<T>(tables), conv_job<double>(tables), numbers_in(plan),
                               {inputs_in(plan), outputs_in(plan)});
}

template <class T>
Job unpooled_conv_moments(Index channels, Index filters, const std::vector<Index>& input,
                          const std::vector<Index>& output, const Geometry& geometry, const PoolPlan& pool) {
  const auto tables = std::make_shared<const ConvTables>(channels, filters, input, output, geometry);
  const ConvPlan& plan = tables->plan();
  const auto folded = std::make_shared<const LaneTables>(plan, geometry, false);
  const auto unfolded = std::make_shared<const LaneTables>(plan, geometry, true);
  const auto lanes = 2 * unfolded->vectors(kLine<T>) <= folded->vectors(kLine<T>) ? unfolded : folded;
  const std::vector<Index> sizes{inputs_in(plan), outputs_in(plan), pool.planes * pool.pooled_plane};
  return exact_where_needed<T>(unpooled_conv_job<T>(tables, lanes, pool),
                               unpooled_conv_job<double>(tables, lanes, pool), numbers_in(plan), sizes);
}

template <class T>
Job unpooled_conv_input(Index channels, Index filters, const std::vector<Index>& input,
                        const std::vector<Index>& output, const Geometry& geometry, const PoolPlan& pool, T slope) {
  const auto tables = std::make_shared<const ConvTables>(channels, filters, input, output, geometry);
  const auto lanes = std::make_shared<const LaneTables>(tables->plan(), geometry, false);
  return [=](const void* const* arrays, Index batch, int threads, void* out) {
    const ConvPlan& plan = tables->plan();
    const Kernels<T>& use = kernels<T>();
    const T *a = array<T>(arrays, 0), *activation = array<T>(arrays, 1), *pooled = array<T>(arrays, 2),
            *weight = array<T>(arrays, 3);
    T* passed = static_cast<T*>(out);
    Layout layout;
    const Region<T> ordered = layout.reserve<T>(filters, lanes->weights_of_one<T>());
    const Scratch shared(layout.bytes());  // among the threads
    lanes->order_weights(weight, plan, filters, ordered.in(shared.block()));
    const Index a_size = channels * plan.plane, delta_size = filters * plan.positions;
    const Index pooled_size = filters * pool.pooled_plane;
    const Index cost = pooled_size * plan.channels * plan.kernel_size / 8;
    const std::size_t bytes = use.unpooled_input_scratch(plan, lanes->plan(), pool);
    for_each_sample(batch, cost, threads, bytes, [&](Index b, void* scratch) {
      use.unpooled_input(plan, lanes->plan(), pool, a + b * a_size, activation + b * delta_size,
                         pooled + b * pooled_size, ordered.in(shared.block()), slope, scratch, passed + b * a_size);
    });
  };
}

template <class T>
Job sequence_moments(const SequenceShape& shape) {
  const auto [positions, inputs, outputs] = shape;
  if (positions == 1) return outer_moments<T>(inputs, outputs);
  return exact_where_needed<T>(sequence_job<T>(shape), sequence_job<double>(shape), inputs * outputs,
                               {positions * inputs, positions * outputs});
}

template <class T>
Job direct_moments(Index count) {
  return [=](const void* const* arrays, Index batch, int threads, void* out) {
    const auto run = kernels<T>().direct;
    const T* g = array<T>(arrays, 0);
    for_each_sample(batch, 4 * count, threads, 0, [&](Index b, void*) { run(g + b * count, count, row(out, b)); });
  };
}

template <class T>
Job position_sum_moments(Index channels, Index positions) {
  return sum_moments<T>(&Kernels<T>::position_sum, channels, positions, channels);
}

template <class T>
Job sequence_sum_moments(Index positions, Index channels) {
  return sum_moments<T>(&Kernels<T>::sequence_sum, positions, channels, channels);
}

namespace {

// Rows of the table that ids name.
std::vector<std::int64_t> rows_of(const std::int64_t* ids, Index count, Index vocabulary) {
  std::vector<std::int64_t> rows(ids, ids + count);
  for (std::int64_t& row : rows) {
    if (row < -vocabulary || row >= vocabulary) {
      throw std::out_of_range("id " + std::to_string(row) + " of a vocabulary of " + std::to_string(vocabulary));
    }
    if (row < 0) row += vocabulary;
  }
  return rows;
}

}  // namespace

template <class T>
Job embedding_moments(Index positions, Index width, Index vocabulary) {
  return [=](const void* const* arrays, Index batch, int threads, void* out) {
    const auto run = kernels<T>().embedding;
    const std::vector<std::int64_t> rows = rows_of(array<std::int64_t>(arrays, 0), batch * positions, vocabulary);
    const T* delta = array<T>(arrays, 1);
    Layout layout;
    const Region<double> sums = layout.reserve<double>(width);
    const Region<Index> sorted = layout.reserve<Index>(positions);
    for_each_sample(batch, 4 * positions * width, threads, layout.bytes(), [&](Index b, void* scratch) {
      const std::int64_t* own = rows.data() + b * positions;
      Index* order = sorted.in(scratch);
      std::iota(order, order + positions, Index{0});
      // Equal rows stay in order of position, so that the sums' rounding does not depend on the sort.
      std::sort(order, order + positions,
                [own](Index x, Index y) { return own[x] != own[y] ? own[x] < own[y] : x < y; });
      run(own, order, positions, delta + b * positions * width, width, vocabulary, sums.in(scratch), row(out, b));
    });
  };
}

#define GRADSCORE_INSTANTIATE(T)                                                                                     \
  template Job outer_moments<T>(Index, Index);                                                                       \
  template Job conv_moments<T>(Index, Index, const std::vector<Index>&, const std::vector<Index>&, const Geometry&); \
  template Job unpooled_conv_moments<T>(Index, Index, const std::vector<Index>&, const std::vector<Index>&,          \
                                        const Geometry&, const PoolPlan&);                                           \
  template Job unpooled_conv_input<T>(Index, Index, const std::vector<Index>&, const std::vector<Index>&,            \
                                      const Geometry&, const PoolPlan&, T);                                          \
  template Job sequence_moments<T>(const SequenceShape&);                                                            \
  template Job direct_moments<T>(Index);                                                                             \
  template Job position_sum_moments<T>(Index, Index);                                                                \
  template Job sequence_sum_moments<T>(Index, Index);                                                                \
  template Job embedding_moments<T>(Index, Index, Index);
GRADSCORE_INSTANTIATE(float)
GRADSCORE_INSTANTIATE(double)

}  // namespace gradscore
