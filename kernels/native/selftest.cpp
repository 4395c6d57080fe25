// A program that runs every kernel at every level on awkward shapes and compares it with plain loops. Its purpose is
// that sanitizers see every load and store: `make sanitize` builds and runs it. The Python tests compare more, and
// closer.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <limits>
#include <new>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.hpp"
#include "layers.hpp"
#include "level.hpp"
#include "parallel.hpp"
#include "program.hpp"
#include "scratch.hpp"

using namespace gradscore;

namespace {

int failures = 0;
std::mt19937 generator(7);

void fail(const char* what, const char* why) {
  std::printf("%s %s: %s\n", simd_level().c_str(), what, why);
  ++failures;
}

// Numbers counted as everywhere in the kernels. Their end is the end of the allocation: reading past it is seen.
template <class T>
struct Numbers : std::vector<T> {
  Numbers() = default;
  explicit Numbers(Index count) : std::vector<T>(static_cast<std::size_t>(count)) {}
  Numbers(std::initializer_list<T> values) : std::vector<T>(values) {}
  T& operator[](Index i) { return this->data()[i]; }
  const T& operator[](Index i) const { return this->data()[i]; }
  Index count() const { return static_cast<Index>(this->size()); }
};

template <class T>
Numbers<T> draw(Index count) {
  std::normal_distribution<double> normal(0.3, 1);
  Numbers<T> values(count);
  for (T& value : values) value = static_cast<T>(normal(generator));
  return values;
}

// Make one sample's numbers nearly all the same, so that its gradient may need to be summed in float64.
template <class T>
void gather(Numbers<T>& values, Index batch, Index sample) {
  const Index size = values.count() / batch;
  for (Index i = sample * size; i < (sample + 1) * size; ++i) values[i] = 1 + values[i] / 64;
}

// sum |g|, mean and M2 of a gradient formed by plain loops, against a kernel's row.
template <class T>
void expect(const char* what, const Numbers<double>& g, const double* row) {
  const double n = static_cast<double>(g.size());
  double size = 0, mean = 0, m2 = 0;
  for (const double x : g) size += std::fabs(x), mean += x / n;
  for (const double x : g) m2 += (x - mean) * (x - mean);
  const double tolerance = sizeof(T) == 4 ? 1e-4 : 1e-9;
  const double low = *std::min_element(g.begin(), g.end()), high = *std::max_element(g.begin(), g.end());
  const double wanted[] = {n, size, mean, m2, row[4], row[5], low, high};
  for (const int i : {0, 1, 2, 3, 6, 7}) {
    if (!(std::fabs(row[i] - wanted[i]) <= tolerance * (1 + std::fabs(wanted[i])))) {
      std::printf("%s %s: value %d is %.9g, not %.9g\n", simd_level().c_str(), what, i, row[i], wanted[i]);
      ++failures;
    }
  }
}

struct Conv {
  Index channels, filters, height, width, kernel, stride, dilation, pad, groups;

  Index rows() const { return (height + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1; }
  Index columns() const { return (width + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1; }
  Geometry geometry() const {
    return {{kernel, kernel}, {stride, stride}, {dilation, dilation}, {pad, pad, pad, pad}, groups};
  }
};

// The gradient of sample b, by plain loops.
template <class T>
Numbers<double> gradient_of(const Conv& c, const Numbers<T>& a, const Numbers<T>& delta, Index rows, Index columns,
                            Index b) {
  const Index channels = c.channels / c.groups, filters = c.filters / c.groups;
  Numbers<double> g;
  for (Index m = 0; m < c.filters; ++m) {
    for (Index k = 0; k < channels * c.kernel * c.kernel; ++k) {
      const Index channel = m / filters * channels + k / (c.kernel * c.kernel);
      const Index ky = k / c.kernel % c.kernel, kx = k % c.kernel;
      double sum = 0;
      for (Index t = 0; t < rows * columns; ++t) {
        const Index y = t / columns * c.stride + ky * c.dilation - c.pad;
        const Index x = t % columns * c.stride + kx * c.dilation - c.pad;
        if (y < 0 || x < 0 || y >= c.height || x >= c.width) continue;
        sum += static_cast<double>(a[((b * c.channels + channel) * c.height + y) * c.width + x]) *
               delta[(b * c.filters + m) * rows * columns + t];
      }
      g.push_back(sum);
    }
  }
  return g;
}

void run(const Job& job, const std::vector<const void*>& arrays, Index batch, int threads, void* out) {
  job(arrays.data(), batch, threads, out);
}

template <class T>
void try_conv(const Conv& c, int threads) {
  const Index batch = 3, rows = c.rows(), columns = c.columns();
  auto a = draw<T>(batch * c.channels * c.height * c.width), delta = draw<T>(batch * c.filters * rows * columns);
  for (auto* values : {&a, &delta}) gather(*values, batch, 1);
  Numbers<double> out(batch * kAccumulator);
  const auto job = conv_moments<T>(c.channels, c.filters, {c.height, c.width}, {rows, columns}, c.geometry());
  run(job, {a.data(), delta.data()}, batch, threads, out.data());
  for (Index b = 0; b < batch; ++b) {
    expect<T>("conv", gradient_of(c, a, delta, rows, columns, b), &out[b * kAccumulator]);
  }
}

// The first maximum of each window of a pooling `size` × `size`, by plain loops.
struct Pooling {
  Index rows, columns, size, step, down, across;
  Numbers<Index> windows, cells;

  Pooling(Index rows_, Index columns_, Index size_, Index step_)
      : rows(rows_),
        columns(columns_),
        size(size_),
        step(step_),
        down((rows - size) / step + 1),
        across((columns - size) / step + 1),
        windows(down * across) {
    std::iota(windows.begin(), windows.end(), Index{0});
    for (const Index w : windows) {
      const Index corner = (w / across * columns + w % across) * step;
      for (Index k = 0; k < size * size; ++k) cells.push_back(corner + k / size * columns + k % size);
    }
  }

  PoolPlan plan(Index planes) const {
    const bool squares = size == 2 && step == 2;
    return {planes,        rows * columns, down * across,  squares ? columns : 0,
            down * across, size * size,    windows.data(), cells.data()};
  }

  template <class T>
  Numbers<T> unpooled(const Numbers<T>& seen, const Numbers<T>& pooled) const {
    Numbers<T> delta(seen.count());
    for (Index i = 0; i < pooled.count(); ++i) {
      const Index map = i / (down * across) * rows * columns, window = i % (down * across) * size * size;
      Index best = cells[window];
      for (Index k = 1; k < size * size; ++k) {
        if (seen[map + cells[window + k]] > seen[map + best]) best = cells[window + k];
      }
      delta[map + best] += pooled[i];
    }
    return delta;
  }
};

// A convolution behind a pooling, against the gradient of a derivative unpooled by plain loops.
template <class T>
void try_unpooled(const Conv& c, Index size, Index step, int threads) {
  const Index batch = 3;
  const Pooling pooling(c.rows(), c.columns(), size, step);
  const auto a = draw<T>(batch * c.channels * c.height * c.width);
  const auto seen = draw<T>(batch * c.filters * pooling.rows * pooling.columns);
  const auto pooled = draw<T>(batch * c.filters * pooling.down * pooling.across);
  const auto delta = pooling.unpooled(seen, pooled);
  Numbers<double> out(batch * kAccumulator);
  const auto job = unpooled_conv_moments<T>(c.channels, c.filters, {c.height, c.width}, {pooling.rows, pooling.columns},
                                            c.geometry(), pooling.plan(c.filters));
  run(job, {a.data(), seen.data(), pooled.data()}, batch, threads, out.data());
  for (Index b = 0; b < batch; ++b) {
    expect<T>("unpooled", gradient_of(c, a, delta, pooling.rows, pooling.columns, b), &out[b * kAccumulator]);
  }
}

// What a pooled derivative passes back, against plain loops over a derivative at full resolution.
template <class T>
void try_input(const Conv& c, Index size, Index step, int threads) {
  const Index batch = 3, rows = c.rows(), columns = c.columns(), plane = c.height * c.width;
  const Index channels = c.channels / c.groups, filters = c.filters / c.groups;
  const Pooling pooling(rows, columns, size, step);
  const auto a = draw<T>(batch * c.channels * plane), seen = draw<T>(batch * c.filters * rows * columns);
  const auto pooled = draw<T>(batch * c.filters * pooling.down * pooling.across);
  const auto weight = draw<T>(c.filters * channels * c.kernel * c.kernel);
  const auto delta = pooling.unpooled(seen, pooled);
  Numbers<double> wanted(a.count());
  for (Index i = 0; i < weight.count() * batch * rows * columns; ++i) {
    const Index t = i % (rows * columns), r = i / (rows * columns) % weight.count();
    const Index b = i / (rows * columns) / weight.count();
    const Index kx = r % c.kernel, ky = r / c.kernel % c.kernel, m = r / (c.kernel * c.kernel * channels);
    const Index channel = m / filters * channels + r / (c.kernel * c.kernel) % channels;
    const Index y = t / columns * c.stride + ky * c.dilation - c.pad,
                x = t % columns * c.stride + kx * c.dilation - c.pad;
    if (y < 0 || x < 0 || y >= c.height || x >= c.width) continue;
    wanted[(b * c.channels + channel) * plane + y * c.width + x] +=
        static_cast<double>(weight[r]) * delta[(b * c.filters + m) * rows * columns + t];
  }
  Numbers<T> found(a.count());
  const auto job = unpooled_conv_input<T>(c.channels, c.filters, {c.height, c.width}, {rows, columns}, c.geometry(),
                                          pooling.plan(c.filters), T(0.25));
  run(job, {a.data(), seen.data(), pooled.data(), weight.data()}, batch, threads, found.data());
  for (Index i = 0; i < a.count(); ++i) {
    const double value = a[i] > 0 ? wanted[i] : wanted[i] * 0.25;
    if (!(std::fabs(found[i] - value) <= (sizeof(T) == 4 ? 1e-3 : 1e-9))) {
      std::printf("%s input: value %td is %.9g, not %.9g\n", simd_level().c_str(), i, static_cast<double>(found[i]),
                  value);
      ++failures;
    }
  }
}

template <class T>
void try_pooled(const Conv& c, Index size, Index step, int threads) {
  try_unpooled<T>(c, size, step, threads);
  try_input<T>(c, size, step, threads);
}

template <class T>
void try_sequence(Index positions, Index inputs, Index outputs) {
  const Index batch = 2;
  const auto a = draw<T>(batch * positions * inputs), delta = draw<T>(batch * positions * outputs);
  Numbers<double> out(batch * kAccumulator), sums(batch * kAccumulator), firsts(batch * kAccumulator);
  run(sequence_moments<T>({positions, inputs, outputs}), {a.data(), delta.data()}, batch, 2, out.data());
  run(sequence_sum_moments<T>(positions, outputs), {delta.data()}, batch, 1, sums.data());
  run(position_sum_moments<T>(positions, outputs), {delta.data()}, batch, 1, firsts.data());
  for (Index b = 0; b < batch; ++b) {
    Numbers<double> g(inputs * outputs), last(outputs), first(positions);
    for (Index t = 0; t < positions; ++t) {
      for (Index m = 0; m < outputs; ++m) {
        const double d = delta[(b * positions + t) * outputs + m];
        last[m] += d;
        first[t] += d;
        for (Index n = 0; n < inputs; ++n) g[m * inputs + n] += d * a[(b * positions + t) * inputs + n];
      }
    }
    expect<T>("sequence", g, &out[b * kAccumulator]);
    expect<T>("sequence_sum", last, &sums[b * kAccumulator]);
    expect<T>("position_sum", first, &firsts[b * kAccumulator]);
  }
}

template <class T>
void try_streams(Index count, Index vocabulary) {
  const auto g = draw<T>(count);
  Numbers<double> out(kAccumulator);
  run(direct_moments<T>(count), {g.data()}, 1, 1, out.data());
  Numbers<double> wide(count);
  std::copy(g.begin(), g.end(), wide.begin());
  expect<T>("direct", wide, out.data());
  Numbers<std::int64_t> ids(count);
  std::uniform_int_distribution<std::int64_t> any(0, vocabulary - 1);
  for (std::int64_t& id : ids) id = any(generator);
  const Index width = 3;
  const auto delta = draw<T>(count * width);
  Numbers<double> table(vocabulary * width);
  for (Index i = 0; i < count * width; ++i) table[ids[i / width] * width + i % width] += delta[i];
  for (Index i = 0; i < count; i += 2) ids[i] -= vocabulary;  // the same rows, counted from the end
  run(embedding_moments<T>(count, width, vocabulary), {ids.data(), delta.data()}, 1, 1, out.data());
  expect<T>("embedding", table, out.data());
}

// Three layers and a derivative passed back between them, against the same jobs run one by one.
void try_program(int threads) {
  const Conv c{3, 5, 12, 10, 3, 1, 1, 0, 1};
  const Pooling pooling(c.rows(), c.columns(), 2, 2);
  const Index batch = 3, plane = c.height * c.width, pooled_plane = pooling.down * pooling.across;
  const Index words = 4, width = 7, vocabulary = 3;
  const auto a = draw<float>(batch * c.channels * plane), pooled = draw<float>(batch * c.filters * pooled_plane);
  const auto seen = draw<float>(batch * c.filters * c.rows() * c.columns()),
             weight = draw<float>(c.filters * c.channels * 9);
  const auto delta = draw<float>(batch * words * width);
  Numbers<std::int64_t> ids{0, 2, -1, 1, 1, 1, -3, 0, 2, 2, 2, 2};
  const std::vector<Index> input{c.height, c.width}, output{c.rows(), c.columns()};
  const PoolPlan plan = pooling.plan(c.filters);
  const auto back = unpooled_conv_input<float>(c.channels, c.filters, input, output, c.geometry(), plan, 0.5f);
  const auto first = position_sum_moments<float>(c.channels, plane);
  const auto second = unpooled_conv_moments<float>(c.channels, c.filters, input, output, c.geometry(), plan);
  const auto third = embedding_moments<float>(words, width, vocabulary);
  Numbers<double> scale(batch);
  std::fill(scale.begin(), scale.end(), 2);
  const Program program({{back, {0, 1, 2, 3}, -1, c.channels * plane},
                         {first, {6}, 0, 0},
                         {second, {0, 1, 2}, 1, 0},
                         {third, {4, 5}, 2, 0}});
  const std::vector<const void*> arrays{a.data(), seen.data(), pooled.data(), weight.data(), ids.data(), delta.data()};
  Numbers<double> found(batch * 4 * kAccumulator), wanted(found.count());
  program.run(arrays, scale.data(), batch, threads, found.data());
  Numbers<float> passed(a.count());
  Numbers<double> one(batch * kAccumulator), two(one.count()), three(one.count());
  run(back, {a.data(), seen.data(), pooled.data(), weight.data()}, batch, 1, passed.data());
  run(first, {passed.data()}, batch, 1, one.data());
  run(second, {a.data(), seen.data(), pooled.data()}, batch, 1, two.data());
  run(third, {ids.data(), delta.data()}, batch, 1, three.data());
  layer_statistics({one.data(), two.data(), three.data()}, {0, 1, 2}, scale.data(), batch, wanted.data());
  if (found != wanted) fail("program", "not what its jobs give");
  for (const std::int64_t outside : {vocabulary, -vocabulary - 1}) {
    ids[5] = outside;
    try {
      program.run(arrays, scale.data(), batch, threads, found.data());
      fail("program", "an id outside the vocabulary is taken");
    } catch (const std::out_of_range&) {
      continue;  // as it must be
    }
  }
}

// Regions lie one after the other on cache lines of their own, and sizes that no machine has are refused, not wrapped.
void try_layout() {
  common::Layout layout;
  const auto bytes = layout.reserve<char>(5);
  const auto numbers = layout.reserve<double>(3, 7);
  const auto none = layout.reserve<float>(0, 9);
  const Scratch scratch(layout.bytes());
  const auto place = [&](const void* at) {
    return static_cast<const char*>(at) - static_cast<const char*>(scratch.block());
  };
  const Index first = place(bytes.in(scratch.block())), second = place(numbers.in(scratch.block()));
  if (first != 0 || second < 5 || second % 64 != 0 || numbers.count != 21 || none.count != 0) {
    fail("layout", "regions lie in one another, or not on cache lines");
  }
  const double* values = numbers.in(scratch.block());
  if (std::any_of(values, values + 21, [](double value) { return value != 0; })) fail("layout", "not zero");
  for (const Index many : {Index{1} << 40, std::numeric_limits<Index>::max()}) {
    common::Layout large;
    large.reserve<float>(many, many);
    large.reserve<float>(8);
    try {
      const Scratch never(large.bytes());
      fail("layout", "memory for more numbers than there are addresses");
    } catch (const std::bad_alloc&) {
      continue;  // as it must be
    }
  }
}

// A sure and an unsure prediction of two classes, whose features are known.
void try_softmax() {
  const Numbers<double> logits{0, 0, 40, 0};
  const Numbers<std::int64_t> labels{1, 0};
  Numbers<double> out(6);
  softmax_features(logits.data(), labels.data(), 2, 2, out.data());
  const double residual = std::exp(-40) / (1 + std::exp(-40)), wanted[] = {1, 0.5, 0.5, 0, 1, residual};
  for (int i = 0; i < 6; ++i) {
    if (!(std::fabs(out[i] - wanted[i]) <= (i == 5 ? 1e-12 * residual : 1e-12))) {
      std::printf("softmax: value %d is %.17g, not %.17g\n", i, out[i], wanted[i]);
      ++failures;
    }
  }
}

template <class T>
void try_all() {
  for (const Conv& c : std::vector<Conv>{{1, 16, 14, 14, 3, 1, 1, 0, 1},
                                         {1, 2, 9, 8, 3, 1, 1, 1, 1},
                                         {5, 37, 9, 10, 3, 2, 1, 1, 1},
                                         {3, 7, 20, 17, 2, 3, 2, 0, 1},
                                         {40, 40, 5, 6, 3, 1, 1, 1, 40},
                                         {34, 68, 4, 4, 1, 1, 1, 0, 34},
                                         {12, 30, 6, 5, 3, 1, 1, 1, 3},
                                         {13, 37, 9, 6, 3, 1, 1, 1, 1},
                                         {26, 9, 7, 8, 3, 1, 1, 0, 1},
                                         {18, 34, 3, 5, 3, 1, 1, 1, 2},
                                         {8, 8, 25, 24, 3, 1, 1, 1, 1},
                                         {2, 3, 30, 31, 5, 1, 1, 2, 1}}) {
    for (const int threads : {1, 3}) try_conv<T>(c, threads);
  }
  for (const Index columns : {2, 3, 8, 17, 31, 66}) {
    for (const int threads : {1, 3}) {
      try_pooled<T>({2, 5, 5, columns, 1, 1, 1, 0, 1}, 2, 2, threads);
      try_pooled<T>({2, 5, 6, columns, 1, 1, 1, 0, 1}, 2, 1, threads);
      if (columns > 2) try_pooled<T>({2, 5, 7, columns, 1, 1, 1, 0, 1}, 3, 2, threads);
      if (columns > 3) try_pooled<T>({1, 7, 9, columns, 3, 1, 1, 0, 1}, 2, 2, threads);
      try_pooled<T>({17, 4, 6, columns, 3, 1, 1, 1, 1}, 2, 2, threads);
      try_pooled<T>({6, 10, 9, columns, 3, 1, 2, 2, 2}, 2, 2, threads);
      try_pooled<T>({24, 24, 6, columns, 3, 1, 1, 1, 24}, 2, 2, threads);
      try_pooled<T>({16, 3, 9, columns + 8, 3, 2, 1, 0, 1}, 2, 2, threads);
    }
  }
  try_pooled<T>({1, 3, 40, 41, 5, 1, 1, 0, 1}, 2, 2, 1);
  try_pooled<T>({2, 5, 14, 15, 3, 1, 1, 0, 1}, 4, 4, 1);
  for (const Index positions : {1, 2, 17, 130}) {
    for (const Index outputs : {1, 5, 16, 33, 70}) try_sequence<T>(positions, 29, outputs);
  }
  for (const Index count : {1, 7, 16, 8192, 8193, 20001}) try_streams<T>(count, 50);
}

}  // namespace

int main() {
  try_softmax();
  try_layout();
  for (const std::string& level : simd_levels()) {
    force_simd_level(level);
    try_all<float>();
    try_all<double>();
    for (const int threads : {1, 2}) try_program(threads);
    std::printf("%s done\n", level.c_str());
  }
  return failures == 0 ? 0 : 1;
}
