// One pass over numbers, in float64, to an accumulator. Included inside a level's namespace after simd.hpp.
//
// Powers are summed about a shift, the first number of a block; at the block's end they become central moments and are
// merged (Pébay 2008, eqs. 2.1, 3.1). The shift lies at most sqrt(block) standard deviations from the block's mean, so
// cancellation costs at most (sqrt(8192))^4 * 1e-16 = 1e-8 of M4; and a constant gives M2 = 0 exactly.

constexpr Index kBlock = 8192;

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

template <int W>
class Reducer {
 public:
  template <class T>
  void add(const T* values, Index count) {
    while (count > 0) {
      const Index part = count < kBlock - held_ ? count : kBlock - held_;
      add_to_block(values, part);
      values += part;
      count -= part;
      if (held_ == kBlock) flush();
    }
  }

  Moments finish() {
    if (held_ > 0) flush();
    return done_;
  }

 private:
  using Lanes = Vector<double, W>;

  // Third and fourth powers are summed twice, in turn, to hide the latency of a multiply-add; more would not fit into
  // sixteen registers.
  struct Sums {
    Lanes abs_sum = fill<double, W>(0), s1 = abs_sum, s2 = abs_sum;
    Lanes s3[2] = {abs_sum, abs_sum}, s4[2] = {abs_sum, abs_sum};
    Lanes low = fill<double, W>(INFINITY), high = fill<double, W>(-INFINITY);

    GRADSCORE_INLINE void add(Lanes x, Lanes size, Lanes shift, int turn) {
      const Lanes d = x - shift, square = d * d;
      abs_sum += size;
      s1 += d;
      s2 += square;
      s3[turn] += square * d;
      s4[turn] += square * square;
      low = smaller<W>(x, low);
      high = larger<W>(x, high);
    }
  };

  template <class T>
  void add_to_block(const T* values, Index count) {
    if (held_ == 0) shift_ = static_cast<double>(values[0]);
    held_ += count;
    const Lanes shift = fill<double, W>(shift_);
    Sums sums = sums_;
    Index i = 0;
    for (; i + 2 * W <= count; i += 2 * W) {
      const Lanes x = widen<W>(load<T, W>(values + i)), y = widen<W>(load<T, W>(values + i + W));
      sums.add(x, magnitude<W>(x), shift, 0);
      sums.add(y, magnitude<W>(y), shift, 1);
    }
    for (; i < count; i += W) {  // the shift itself fills missing lanes: it adds nothing to the powers
      double some[W], sizes[W];
      for (int lane = 0; lane < W; ++lane) {
        const bool there = i + lane < count;
        some[lane] = there ? static_cast<double>(values[i + lane]) : shift_;
        sizes[lane] = there ? (some[lane] < 0 ? -some[lane] : some[lane]) : 0;
      }
      sums.add(load<double, W>(some), load<double, W>(sizes), shift, 0);
    }
    sums_ = sums;
  }

  static double sum(Lanes x) {
    double total = 0;
    for (int lane = 0; lane < W; ++lane) total += x[lane];
    return total;
  }

  void flush() {
    const double n = static_cast<double>(held_);
    const double s2 = sum(sums_.s2), s3 = sum(sums_.s3[0] + sums_.s3[1]), s4 = sum(sums_.s4[0] + sums_.s4[1]);
    const double mean = sum(sums_.s1) / n;
    Moments block;
    block.n = n;
    block.abs_sum = sum(sums_.abs_sum);
    block.mean = shift_ + mean;
    block.m2 = s2 - n * mean * mean;
    block.m2 = block.m2 < 0 ? 0 : block.m2;
    block.m3 = s3 - mean * (3 * s2 - 2 * n * mean * mean);
    block.m4 = s4 - mean * (4 * s3 - mean * (6 * s2 - 3 * n * mean * mean));
    for (int lane = 0; lane < W; ++lane) {
      block.low = sums_.low[lane] < block.low ? sums_.low[lane] : block.low;
      block.high = sums_.high[lane] > block.high ? sums_.high[lane] : block.high;
    }
    done_.merge(block);
    sums_ = Sums{};
    held_ = 0;
  }

  Moments done_;
  Sums sums_;
  double shift_ = 0;
  Index held_ = 0;
};
