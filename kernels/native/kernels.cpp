#include "kernels.hpp"

#include <stdexcept>
#include <system_error>
#include <type_traits>

#include "parallel.hpp"
#include "plan.hpp"

namespace gradscore {
namespace {

std::vector<const Level*> levels_here() {
  std::vector<const Level*> levels;
#if defined(GRADSCORE_X86_LEVELS)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")) {
    levels.push_back(&kAvx512);
  }
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

template <class T>
void outer_moments(const T* a, const T* delta, Index batch, Index inputs, Index outputs, int threads, double* out) {
  const auto run = kernels<T>().outer;
  for_each_sample(batch, 4.0 * (inputs + outputs), threads, 0, [&](Index b, const Scratch&) {
    run(a + b * inputs, inputs, delta + b * outputs, outputs, out + b * kAccumulator);
  });
}

template <class T>
void conv_moments(const T* a, const T* delta, Index batch, Index channels, Index filters,
                  const std::vector<Index>& input, const std::vector<Index>& output, const Geometry& geometry,
                  int threads, double* out) {
  const ConvTables tables(channels, filters, input, output, geometry);
  const ConvPlan& plan = tables.plan();
  const Kernels<T>& use = kernels<T>();
  const Index a_size = channels * plan.plane, delta_size = filters * plan.positions;
  const double cost = static_cast<double>(delta_size) * plan.channels * plan.kernel_size / 8;
  for_each_sample(batch, cost, threads, use.conv_scratch(plan) * sizeof(T), [&](Index b, const Scratch& scratch) {
    use.conv(plan, a + b * a_size, delta + b * delta_size, scratch.as<T>(), out + b * kAccumulator);
  });
}

template <class T>
void unpooled_conv_moments(const T* a, const T* activation, const T* pooled, Index batch, Index channels, Index filters,
                           const std::vector<Index>& input, const std::vector<Index>& output, const Geometry& geometry,
                           const PoolPlan& pool, int threads, double* out) {
  const ConvTables tables(channels, filters, input, output, geometry);
  const ConvPlan& plan = tables.plan();
  const Kernels<T>& use = kernels<T>();
  const LaneTables folded(plan, geometry, false), unfolded(plan, geometry, true);
  const LanePlan& lanes = (2 * unfolded.vectors(kLine<T>) <= folded.vectors(kLine<T>) ? unfolded : folded).plan();
  const Index a_size = channels * plan.plane, delta_size = filters * plan.positions;
  const Index pooled_size = filters * pool.pooled_plane;
  const double cost = static_cast<double>(delta_size) * (plan.channels * plan.kernel_size / 8.0 + 2);
  const std::size_t bytes = use.unpooled_conv_scratch(plan, lanes, pool) * sizeof(T);
  for_each_sample(batch, cost, threads, bytes, [&](Index b, const Scratch& scratch) {
    use.unpooled_conv(plan, lanes, pool, a + b * a_size, activation + b * delta_size, pooled + b * pooled_size,
                      scratch.as<T>(), out + b * kAccumulator);
  });
}

template <class T>
void unpooled_conv_input(const T* a, const T* activation, const T* pooled, const T* weight, T slope, Index batch,
                         Index channels, Index filters, const std::vector<Index>& input,
                         const std::vector<Index>& output, const Geometry& geometry, const PoolPlan& pool, int threads,
                         T* out) {
  const ConvTables tables(channels, filters, input, output, geometry);
  const ConvPlan& plan = tables.plan();
  const Kernels<T>& use = kernels<T>();
  const LaneTables lanes(plan, geometry, false);
  const std::vector<T> rearranged = lanes.weights(weight, plan, filters);
  const Index a_size = channels * plan.plane, delta_size = filters * plan.positions;
  const Index pooled_size = filters * pool.pooled_plane;
  const double cost = static_cast<double>(pooled_size) * plan.channels * plan.kernel_size / 8;
  const std::size_t bytes = use.unpooled_input_scratch(plan, lanes.plan(), pool) * sizeof(T);
  for_each_sample(batch, cost, threads, bytes, [&](Index b, const Scratch& scratch) {
    use.unpooled_input(plan, lanes.plan(), pool, a + b * a_size, activation + b * delta_size, pooled + b * pooled_size,
                       rearranged.data(), slope, scratch.as<T>(), out + b * a_size);
  });
}

template <class T>
void sequence_moments(const T* a, const T* delta, Index batch, const SequenceShape& shape, int threads, double* out) {
  if (shape.positions == 1) return outer_moments(a, delta, batch, shape.inputs, shape.outputs, threads, out);
  const Kernels<T>& use = kernels<T>();
  const Index a_size = shape.positions * shape.inputs, delta_size = shape.positions * shape.outputs;
  const double cost = static_cast<double>(a_size) * shape.outputs / 8;
  for_each_sample(batch, cost, threads, use.sequence_scratch(shape) * sizeof(T), [&](Index b, const Scratch& scratch) {
    use.sequence(shape, a + b * a_size, delta + b * delta_size, scratch.as<T>(), out + b * kAccumulator);
  });
}

template <class T>
void direct_moments(const T* g, Index batch, Index count, int threads, double* out) {
  const auto run = kernels<T>().direct;
  for_each_sample(batch, 4.0 * count, threads, 0,
                  [&](Index b, const Scratch&) { run(g + b * count, count, out + b * kAccumulator); });
}

template <class T>
void position_sum_moments(const T* delta, Index batch, Index channels, Index positions, int threads, double* out) {
  const auto run = kernels<T>().position_sum;
  const Index size = channels * positions;
  for_each_sample(batch, size, threads, channels * sizeof(double), [&](Index b, const Scratch& scratch) {
    run(delta + b * size, channels, positions, scratch.as<double>(), out + b * kAccumulator);
  });
}

template <class T>
void sequence_sum_moments(const T* delta, Index batch, Index positions, Index channels, int threads, double* out) {
  const auto run = kernels<T>().sequence_sum;
  const Index size = channels * positions;
  for_each_sample(batch, size, threads, channels * sizeof(double), [&](Index b, const Scratch& scratch) {
    run(delta + b * size, positions, channels, scratch.as<double>(), out + b * kAccumulator);
  });
}

template <class T>
void embedding_moments(const std::int64_t* ids, const T* delta, Index batch, Index positions, Index width,
                       Index vocabulary, int threads, double* out) {
  const auto run = kernels<T>().embedding;
  const std::size_t sums_bytes = width * sizeof(double);
  const std::size_t bytes = sums_bytes + positions * sizeof(Index);
  for_each_sample(batch, 4.0 * positions * width, threads, bytes, [&](Index b, const Scratch& scratch) {
    const std::int64_t* own = ids + b * positions;
    Index* order = reinterpret_cast<Index*>(scratch.as<char>() + sums_bytes);
    std::iota(order, order + positions, Index{0});
    // Equal ids stay in order of position, so that the sums' rounding does not depend on the sort.
    std::sort(order, order + positions, [own](Index x, Index y) { return own[x] != own[y] ? own[x] < own[y] : x < y; });
    run(own, order, positions, delta + b * positions * width, width, vocabulary, scratch.as<double>(),
        out + b * kAccumulator);
  });
}

#define GRADSCORE_INSTANTIATE(T)                                                                                       \
  template void outer_moments(const T*, const T*, Index, Index, Index, int, double*);                                  \
  template void conv_moments(const T*, const T*, Index, Index, Index, const std::vector<Index>&,                       \
                             const std::vector<Index>&, const Geometry&, int, double*);                                \
  template void unpooled_conv_moments(const T*, const T*, const T*, Index, Index, Index, const std::vector<Index>&,      \
                                      const std::vector<Index>&, const Geometry&, const PoolPlan&, int, double*);      \
  template void unpooled_conv_input(const T*, const T*, const T*, const T*, T, Index, Index, Index,                    \
                                    const std::vector<Index>&, const std::vector<Index>&, const Geometry&,             \
                                    const PoolPlan&, int, T*);                                                         \
  template void sequence_moments(const T*, const T*, Index, const SequenceShape&, int, double*);                       \
  template void direct_moments(const T*, Index, Index, int, double*);                                                  \
  template void position_sum_moments(const T*, Index, Index, Index, int, double*);                                     \
  template void sequence_sum_moments(const T*, Index, Index, Index, int, double*);                                     \
  template void embedding_moments(const std::int64_t*, const T*, Index, Index, Index, Index, int, double*);
GRADSCORE_INSTANTIATE(float)
GRADSCORE_INSTANTIATE(double)

}  // namespace gradscore
