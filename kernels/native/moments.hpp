// One pass over numbers, in float64, to an accumulator.
//
// Powers are summed about a shift, the mean of a block's first numbers, or 0 where that lies near enough; at the
// block's end they become central moments and are merged (Pébay 2008, eqs. 2.1, 3.1). A constant gives M2 = 0 exactly.
// The shift lies at most sqrt(16384 / 64) = 16 standard deviations from the block's mean (a quarter of one more where
// it is 0), so float64 loses 18^4 * 1e-16 = 1e-11 of M4 at most.
//
// Numbers that were themselves summed in float32 (a tile's) have their powers summed in float32 over short runs, where
// these stay well inside its range: that costs 1e-7, as the numbers did.
#pragma once

#include <cmath>

#include "accumulator.hpp"
#include "instruction_set.hpp"
#include "level.hpp"
#include "simd.hpp"

namespace gradscore::GRADSCORE_LEVEL {

constexpr Index kBlock = 16384, kFirst = 64;
constexpr Index kShort = 64;                        // vectors of a run whose powers are summed in float32
constexpr double kNear = 1.0 / 16;                  // of the variance: the square of a mean that is as good as 0
constexpr double kSmallest = 1e-9, kLargest = 1e9;  // distances from the shift whose fourth powers float32 holds

// The smallest lane, by halves.
template <class T, int W>
GRADSCORE_INLINE T lowest(Vector<T, W> x) {
  Vector<T, W / 2> half[2];
  split<T, W>(x, half);
  const Vector<T, W / 2> least = smaller<T, W / 2>(half[0], half[1]);
  if constexpr (W == 2) {
    return least[0];
  } else {
    return lowest<T, W / 2>(least);
  }
}

template <class T, int W>
GRADSCORE_INLINE T highest(Vector<T, W> x) {
  Vector<T, W / 2> half[2];
  split<T, W>(x, half);
  const Vector<T, W / 2> most = larger<T, W / 2>(half[0], half[1]);
  if constexpr (W == 2) {
    return most[0];
  } else {
    return highest<T, W / 2>(most);
  }
}

// The smallest and the largest of some numbers.
template <class T, int W>
struct Range {
  double low = INFINITY, high = -INFINITY;

  void include(const T* values, Index count) {
    Index i = 0;
    if (count >= W) {
      Vector<T, W> least = fill<T, W>(INFINITY), most = fill<T, W>(-INFINITY);
      for (; i + W <= count; i += W) {
        const Vector<T, W> x = load<T, W>(values + i);
        least = smaller<T, W>(x, least);
        most = larger<T, W>(x, most);
      }
      include(static_cast<double>(lowest<T, W>(least)), static_cast<double>(highest<T, W>(most)));
    }
    for (; i < count; ++i) include(static_cast<double>(values[i]), static_cast<double>(values[i]));
  }

  void include(double least, double most) {
    low = least < low ? least : low;
    high = most > high ? most : high;
  }
};

// Add numbers to the sums of their sizes and of the first four powers of their distances from a shift. The sums are
// single variables throughout a loop: compilers keep a structure of vectors, and what lives across a call, in memory.
template <bool shifted, class Lanes>
GRADSCORE_INLINE void add_powers(Lanes x, Lanes magnitudes, Lanes shift, Lanes& size, Lanes& s1, Lanes& s2, Lanes& s3,
                                 Lanes& s4) {
  const Lanes d = shifted ? x - shift : x, square = d * d;
  size += magnitudes;
  s1 += d;
  s2 += square;
  s3 += square * d;
  s4 += square * square;
}

// The last `count` < W numbers: the shift itself fills missing lanes, as it adds nothing to the powers.
template <class T, int W, class From>
GRADSCORE_INLINE void fill_up(const From* values, Index count, T shift, T* some, T* sizes) {
  for (int lane = 0; lane < W; ++lane) {
    some[lane] = lane < count ? static_cast<T>(values[lane]) : shift;
    sizes[lane] = lane < count ? (some[lane] < 0 ? -some[lane] : some[lane]) : T(0);
  }
}

template <int W>
class Reducer {
 public:
  Reducer() { clear(); }

  template <class T>
  void add(const T* values, Index count) {
    in_blocks(values, count, [this](const T* part, Index some) { add_exactly(part, some); });
  }

  // The same to 1e-7, and faster, for numbers that are not known any better.
  void add_rounded(const float* values, Index count) {
    in_blocks(values, count, [this](const float* part, Index some) { add_single(part, some); });
  }
  void add_rounded(const double* values, Index count) { add(values, count); }

  Moments finish() {
    if (held_ > 0) flush();
    return done_;
  }

 private:
  template <class T, class Add>
  void in_blocks(const T* values, Index count, const Add& add_part) {
    while (count > 0) {
      const Index part = count < kBlock - held_ ? count : kBlock - held_;
      if (held_ == 0) shift_ = centre(values, part);
      add_part(values, part);
      held_ += part;
      values += part;
      count -= part;
      if (held_ == kBlock) flush();
    }
  }

  // A number of type T in the middle of the first ones; exactly the constant, if they are one. 0, which saves
  // subtracting it, where they lie about it.
  template <class T>
  static double centre(const T* values, Index count) {
    const Index some = count < kFirst ? count : kFirst;
    const double first = static_cast<double>(values[0]), n = static_cast<double>(some);
    Vector<double, W> totals = fill<double, W>(0), squares = totals;
    Index i = 0;
    for (; i + W <= some; i += W) {
      const Vector<double, W> d = widen<W>(load<T, W>(values + i)) - fill<double, W>(first);
      totals += d;
      squares += d * d;
    }
    double total = sum(totals), square = sum(squares);
    for (; i < some; ++i) {
      const double d = static_cast<double>(values[i]) - first;
      total += d;
      square += d * d;
    }
    const double mean = first + total / n, variance = square / n - total / n * (total / n);
    return mean * mean <= kNear * variance ? 0 : static_cast<double>(static_cast<T>(mean));
  }

  template <class T>
  void add_exactly(const T* values, Index count) {
    if (shift_ == 0) {
      add_doubles<false>(values, count);
    } else {
      add_doubles<true>(values, count);
    }
  }

  // Two sets of sums, as one would wait for its own additions.
  template <bool shifted, class T>
  void add_doubles(const T* values, Index count) {
    using Lanes = Vector<double, W>;
    const Lanes shift = fill<double, W>(shift_), none = fill<double, W>(0);
    Lanes size = sums_[0], s1 = sums_[1], s2 = sums_[2], s3 = sums_[3], s4 = sums_[4];
    Range<T, W> range;
    if (count >= 2 * W) {
      constexpr int V = W * sizeof(double) / sizeof(T);
      Vector<T, V> low = load<T, V>(values), high = low;
      Lanes other = none, t1 = none, t2 = none, t3 = none, t4 = none;
      for (; count >= 2 * W; count -= 2 * W, values += 2 * W) {
        GRADSCORE_UNROLL
        for (int i = 0; i < 2 * W; i += V) {
          const Vector<T, V> some = load<T, V>(values + i);
          low = smaller<T, V>(some, low);
          high = larger<T, V>(some, high);
        }
        const Lanes x = widen<W>(load<T, W>(values)), y = widen<W>(load<T, W>(values + W));
        add_powers<shifted>(x, magnitude<W>(x), shift, size, s1, s2, s3, s4);
        add_powers<shifted>(y, magnitude<W>(y), shift, other, t1, t2, t3, t4);
      }
      range.include(static_cast<double>(lowest<T, V>(low)), static_cast<double>(highest<T, V>(high)));
      size += other, s1 += t1, s2 += t2, s3 += t3, s4 += t4;
    }
    range.include(values, count);
    for (; count > 0; count -= W, values += W) {
      double some[W], sizes[W];
      fill_up<double, W>(values, count, shift_, some, sizes);
      add_powers<true>(load<double, W>(some), load<double, W>(sizes), shift, size, s1, s2, s3, s4);
    }
    range_.include(range.low, range.high);
    sums_[0] = size, sums_[1] = s1, sums_[2] = s2, sums_[3] = s3, sums_[4] = s4;
  }

  // In one pass; where float32 turns out not to hold the powers, once more exactly.
  void add_single(const float* values, Index count) {
    constexpr int F = 2 * W;
    Vector<float, F> low = fill<float, F>(INFINITY), high = fill<float, F>(-INFINITY);
    Vector<double, W> sums[kSums];
    for (Vector<double, W>& each : sums) each = fill<double, W>(0);
    Range<float, F> range;
    for (Index done = 0; done < count; done += kShort * F) {
      const Index some = count - done < kShort * F ? count - done : kShort * F, whole = some / F * F;
      if (shift_ == 0) {
        add_run<false>(values + done, whole, low, high, sums);
      } else {
        add_run<true>(values + done, whole, low, high, sums);
      }
      if (whole < some) {
        range.include(values + done + whole, some - whole);
        add_rest(values + done + whole, some - whole, sums);
      }
    }
    range.include(static_cast<double>(lowest<float, F>(low)), static_cast<double>(highest<float, F>(high)));
    const double up = range.high - shift_, down = shift_ - range.low, reach = up > down ? up : down;
    const double largest = range.high > -range.low ? range.high : -range.low;
    if (!(reach == 0 || (reach > kSmallest && reach < kLargest)) || largest > 1e30) return add_exactly(values, count);
    range_.include(range.low, range.high);
    for (int i = 0; i < kSums; ++i) sums_[i] += sums[i];
  }

  // Whole vectors, with two sets of sums.
  template <bool shifted>
  GRADSCORE_INLINE void add_run(const float* values, Index count, Vector<float, 2 * W>& low, Vector<float, 2 * W>& high,
                                Vector<double, W>* sums) const {
    constexpr int F = 2 * W;
    using Lanes = Vector<float, F>;
    const Lanes shift = fill<float, F>(static_cast<float>(shift_)), none = fill<float, F>(0);
    Lanes size = none, s1 = none, s2 = none, s3 = none, s4 = none;
    Lanes other = none, t1 = none, t2 = none, t3 = none, t4 = none;
    Lanes least = low, most = high;
    for (; count >= 2 * F; count -= 2 * F, values += 2 * F) {
      const Lanes x = load<float, F>(values), y = load<float, F>(values + F);
      least = smaller<float, F>(x, smaller<float, F>(y, least));
      most = larger<float, F>(x, larger<float, F>(y, most));
      add_powers<shifted>(x, magnitude<F>(x), shift, size, s1, s2, s3, s4);
      add_powers<shifted>(y, magnitude<F>(y), shift, other, t1, t2, t3, t4);
    }
    if (count > 0) {
      const Lanes x = load<float, F>(values);
      least = smaller<float, F>(x, least);
      most = larger<float, F>(x, most);
      add_powers<shifted>(x, magnitude<F>(x), shift, size, s1, s2, s3, s4);
    }
    low = least, high = most;
    fold(size + other, sums[0]);
    fold(s1 + t1, sums[1]);
    fold(s2 + t2, sums[2]);
    fold(s3 + t3, sums[3]);
    fold(s4 + t4, sums[4]);
  }

  // Less than a vector.
  void add_rest(const float* values, Index count, Vector<double, W>* sums) const {
    constexpr int F = 2 * W;
    using Lanes = Vector<float, F>;
    const float centre = static_cast<float>(shift_);
    const Lanes none = fill<float, F>(0);
    Lanes size = none, s1 = none, s2 = none, s3 = none, s4 = none;
    float some[F], sizes[F];
    fill_up<float, F>(values, count, centre, some, sizes);
    add_powers<true>(load<float, F>(some), load<float, F>(sizes), fill<float, F>(centre), size, s1, s2, s3, s4);
    fold(size, sums[0]);
    fold(s1, sums[1]);
    fold(s2, sums[2]);
    fold(s3, sums[3]);
    fold(s4, sums[4]);
  }

  static GRADSCORE_INLINE void fold(Vector<float, 2 * W> single, Vector<double, W>& sum) {
    Vector<float, W> half[2];
    split<float, 2 * W>(single, half);
    sum += widen<W>(half[0]) + widen<W>(half[1]);
  }

  static double sum(Vector<double, W> x) {
    double total = 0;
    for (int lane = 0; lane < W; ++lane) total += x[lane];
    return total;
  }

  void flush() {
    const double n = static_cast<double>(held_);
    const double s2 = sum(sums_[2]), s3 = sum(sums_[3]), s4 = sum(sums_[4]);
    const double mean = sum(sums_[1]) / n;
    Moments block;
    block.n = n;
    block.abs_sum = sum(sums_[0]);
    block.mean = shift_ + mean;
    block.m2 = s2 - n * mean * mean;
    block.m2 = block.m2 < 0 ? 0 : block.m2;
    block.m3 = s3 - mean * (3 * s2 - 2 * n * mean * mean);
    block.m4 = s4 - mean * (4 * s3 - mean * (6 * s2 - 3 * n * mean * mean));
    block.low = range_.low;
    block.high = range_.high;
    done_.merge(block);
    clear();
    held_ = 0;
  }

  void clear() {
    for (Vector<double, W>& each : sums_) each = fill<double, W>(0);
    range_ = {};
  }

  static constexpr int kSums = 5;
  Moments done_;
  Vector<double, W> sums_[kSums];  // of sizes, and of powers one to four
  Range<double, W> range_;
  double shift_ = 0;
  Index held_ = 0;
};

// Tiles side by side until there are enough of them to reduce at once.
template <class T>
class TileReducer {
 public:
  // Room for `count` numbers, of which `keep` says how many there are.
  T* room(Index count) {
    if (held_ + count > kCapacity) flush();
    return values_ + held_;
  }
  void keep(Index count) { held_ += count; }

  Moments finish() {
    flush();
    return reducer_.finish();
  }

 private:
  static constexpr Index kCapacity = 8192 / sizeof(T);

  void flush() {
    if (held_ > 0) reducer_.add_rounded(values_, held_);
    held_ = 0;
  }

  alignas(64) T values_[kCapacity];
  Index held_ = 0;
  Reducer<kDoubles> reducer_;
};

}  // namespace gradscore::GRADSCORE_LEVEL
