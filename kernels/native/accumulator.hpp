// An accumulator: what is known of some numbers after one pass over them, and how two of them merge.
#pragma once

#include <cmath>

#include "instruction_set.hpp"
#include "level.hpp"

namespace gradscore::GRADSCORE_LEVEL {

// n, sum |g|, mean, M2, M3, M4, min, max of some numbers.
struct Moments {
  double n = 0, abs_sum = 0, mean = 0, m2 = 0, m3 = 0, m4 = 0;
  double low = INFINITY, high = -INFINITY;

  void merge(const Moments& other) {
    if (n == 0) {
      *this = other;
      return;
    }
    const double total = n + other.n, d = other.mean - mean, share = d / total;
    const double pair = n * other.n * d * share;  // what the distance of the means adds to M2
    m4 += other.m4 + pair * share * share * (n * n - n * other.n + other.n * other.n) +
          6 * share * share * (n * n * other.m2 + other.n * other.n * m2) + 4 * share * (n * other.m3 - other.n * m3);
    m3 += other.m3 + pair * share * (n - other.n) + 3 * share * (n * other.m2 - other.n * m2);
    m2 += other.m2 + pair;
    mean += other.n * share;
    abs_sum += other.abs_sum;
    low = other.low < low ? other.low : low;
    high = other.high > high ? other.high : high;
    n = total;
  }

  // A gradient that held NaN or Inf, or whose sum overflows, has no statistics.
  void write(double* out) const {
    const double values[kAccumulator] = {n, abs_sum, mean, m2, m3, m4, low, high};
    const bool finite = abs_sum - abs_sum == 0;
    for (int i = 0; i < kAccumulator; ++i) out[i] = finite || i == 0 ? values[i] : NAN;
  }
};

}  // namespace gradscore::GRADSCORE_LEVEL
