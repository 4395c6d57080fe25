// One pass over numbers, in float64, to an accumulator. Included inside a level's namespace after simd.hpp.
//
// Powers are summed about a shift, the mean of a block's first numbers; at the block's end they become central moments
// and are merged (Pébay 2008, eqs. 2.1, 3.1). A constant gives M2 = 0 exactly. The shift lies at most
// sqrt(8192 / 64) = 12 standard deviations from the block's mean, so float64 loses 12^4 * 1e-16 = 2e-12 of M4 at most.
//
// Numbers that were themselves summed in float32 (a tile's) have their powers summed in float32 over short runs, where
// these stay well inside its range: that costs 1e-7, as the numbers did.

constexpr Index kBlock = 8192, kFirst = 64;
constexpr Index kShort = 32;                   // vectors of a run whose powers are summed in float32
constexpr double kSmallest = 1e-9, kLargest = 1e9;  // distances from the shift whose fourth powers float32 holds

// The smallest lane, by halves.
template <class T, int W>
GRADSCORE_INLINE T lowest(Vector<T, W> x) {
  Vector<T, W / 2> half[2];
  std::memcpy(half, &x, sizeof x);
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
  std::memcpy(half, &x, sizeof x);
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
template <class Lanes>
GRADSCORE_INLINE void add_powers(Lanes x, Lanes magnitudes, Lanes shift, Lanes& size, Lanes& s1, Lanes& s2, Lanes& s3,
                                 Lanes& s4) {
  const Lanes d = x - shift, square = d * d;
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

  // A number of type T in the middle of the first ones; exactly the constant, if they are one.
  template <class T>
  static double centre(const T* values, Index count) {
    const Index some = count < kFirst ? count : kFirst;
    double total = 0;
    for (Index i = 0; i < some; ++i) total += static_cast<double>(values[i]) - static_cast<double>(values[0]);
    return static_cast<double>(static_cast<T>(static_cast<double>(values[0]) + total / static_cast<double>(some)));
  }

  template <class T>
  void add_exactly(const T* values, Index count) {
    using Lanes = Vector<double, W>;
    const Lanes shift = fill<double, W>(shift_);
    Lanes size = sums_[0], s1 = sums_[1], s2 = sums_[2], s3 = sums_[3], s4 = sums_[4];
    Range<T, W> range;
    if (count >= 2 * W) {
      constexpr int V = W * sizeof(double) / sizeof(T);
      Vector<T, V> low = load<T, V>(values), high = low;
      for (; count >= 2 * W; count -= 2 * W, values += 2 * W) {
        GRADSCORE_UNROLL
        for (int i = 0; i < 2 * W; i += V) {
          const Vector<T, V> some = load<T, V>(values + i);
          low = smaller<T, V>(some, low);
          high = larger<T, V>(some, high);
        }
        const Lanes x = widen<W>(load<T, W>(values)), y = widen<W>(load<T, W>(values + W));
        add_powers(x, magnitude<W>(x), shift, size, s1, s2, s3, s4);
        add_powers(y, magnitude<W>(y), shift, size, s1, s2, s3, s4);
      }
      range.include(static_cast<double>(lowest<T, V>(low)), static_cast<double>(highest<T, V>(high)));
    }
    range.include(values, count);
    for (; count > 0; count -= W, values += W) {
      double some[W], sizes[W];
      fill_up<double, W>(values, count, shift_, some, sizes);
      add_powers(load<double, W>(some), load<double, W>(sizes), shift, size, s1, s2, s3, s4);
    }
    range_.include(range.low, range.high);
    sums_[0] = size, sums_[1] = s1, sums_[2] = s2, sums_[3] = s3, sums_[4] = s4;
  }

  void add_single(const float* values, Index count) {
    constexpr int F = 2 * W;
    Range<float, F> range;
    range.include(values, count);
    const double up = range.high - shift_, down = shift_ - range.low, reach = up > down ? up : down;
    const double largest = range.high > -range.low ? range.high : -range.low;
    if (!(reach == 0 || (reach > kSmallest && reach < kLargest)) || largest > 1e30) return add_exactly(values, count);
    range_.include(range.low, range.high);
    for (; count > 0; count -= kShort * F, values += kShort * F) {
      add_run(values, count < kShort * F ? count : kShort * F, static_cast<float>(shift_));
    }
  }

  void add_run(const float* values, Index count, float centre) {
    constexpr int F = 2 * W;
    using Lanes = Vector<float, F>;
    const Lanes shift = fill<float, F>(centre), none = fill<float, F>(0);
    Lanes size = none, s1 = none, s2 = none, s3 = none, s4 = none;
    for (; count >= F; count -= F, values += F) {
      const Lanes x = load<float, F>(values);
      add_powers(x, magnitude<F>(x), shift, size, s1, s2, s3, s4);
    }
    if (count > 0) {
      float some[F], sizes[F];
      fill_up<float, F>(values, count, centre, some, sizes);
      add_powers(load<float, F>(some), load<float, F>(sizes), shift, size, s1, s2, s3, s4);
    }
    fold(size, sums_[0]);
    fold(s1, sums_[1]);
    fold(s2, sums_[2]);
    fold(s3, sums_[3]);
    fold(s4, sums_[4]);
  }

  static GRADSCORE_INLINE void fold(Vector<float, 2 * W> single, Vector<double, W>& sum) {
    double wide[2 * W];
    store<double, 2 * W>(wide, widen<2 * W>(single));
    sum += load<double, W>(wide) + load<double, W>(wide + W);
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
