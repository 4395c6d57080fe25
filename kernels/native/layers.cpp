// Accumulators of a network's parameters -> statistics of its layers and of all together; logits -> what they tell.
#include "layers.hpp"

#include <cmath>
#include <cstdint>
#include <vector>

#include "accumulator.hpp"
#include "level.hpp"

namespace gradscore {
namespace {

using common::Moments;

constexpr double kRounding = 1e-15;  // a standard deviation below this part of the mean is rounding of a constant

Moments read(const double* values) {
  Moments moments;
  moments.n = values[0];
  moments.abs_sum = values[1];
  moments.mean = values[2];
  moments.m2 = values[3];
  moments.m3 = values[4];
  moments.m4 = values[5];
  moments.low = values[6];
  moments.high = values[7];
  return moments;
}

// l1, l2, min, max, mean, std, skewness, kurtosis of the numbers times `scale`.
void write_statistics(const Moments& moments, double scale, double* out) {
  double given[kAccumulator];
  moments.write(given);
  const double n = given[0], mean = given[2], m2 = given[3], variance = m2 / n, std = std::sqrt(variance);
  const bool constant = std <= kRounding * std::abs(mean);
  out[0] = scale * given[1];
  out[1] = scale * std::hypot(std::sqrt(m2), std::sqrt(n) * mean);
  out[2] = scale * given[6];
  out[3] = scale * given[7];
  out[4] = scale * mean;
  out[5] = scale * std;
  out[6] = constant ? 0 : given[4] / n / std / std / std;
  out[7] = constant ? 0 : given[5] / n / variance / variance - 3;
}

// log(1 + exp(x)), for any x.
double softplus(double x) { return std::fmax(x, 0) + std::log1p(std::exp(-std::fabs(x))); }

// In terms of log odds against the label, so that no two near-equal numbers are ever subtracted.
void write_softmax(const double* logits, Index label, Index classes, double* out) {
  double top = -INFINITY, total = 0, weighted = 0;
  for (Index i = 0; i < classes; ++i) {
    if (i != label && logits[i] > top) top = logits[i];
  }
  for (Index i = 0; i < classes; ++i) {
    if (i == label) continue;
    const double below = logits[i] - top, weight = std::exp(below);
    total += weight;
    if (weight > 0) weighted += weight * below;
  }
  const double log_odds = top + std::log(total) - logits[label];
  const double log_residual = -softplus(-log_odds), log_max = -softplus(log_odds);
  const double residual = std::exp(log_residual), maximum = std::exp(log_max);
  const double others = std::log(total) - weighted / total;  // entropy of the softmax without the label
  const double own = residual == 0 ? 0 : -residual * log_residual;
  out[0] = (own - maximum * log_max + residual * others) / std::log(static_cast<double>(classes));
  out[1] = maximum;
  out[2] = residual;
}

}  // namespace

void layer_statistics(const std::vector<const double*>& parts, const std::vector<Index>& layer, const double* scale,
                      Index batch, double* out) {
  const Index layers = layer.empty() ? 0 : layer.back() + 1;
  for (Index b = 0; b < batch; ++b) {
    double* row = out + b * (layers + 1) * kAccumulator;
    Moments all;
    for (std::size_t i = 0; i < parts.size();) {
      const Index own = layer[i];
      Moments merged;
      for (; i < parts.size() && layer[i] == own; ++i) merged.merge(read(parts[i] + b * kAccumulator));
      write_statistics(merged, scale[b], row + own * kAccumulator);
      all.merge(merged);
    }
    write_statistics(all, scale[b], row + layers * kAccumulator);
  }
}

void softmax_features(const double* logits, const std::int64_t* labels, Index batch, Index classes, double* out) {
  for (Index b = 0; b < batch; ++b) write_softmax(logits + b * classes, labels[b], classes, out + 3 * b);
}

}  // namespace gradscore
