// Short vectors of W numbers, and what the kernels do with them: load, store, add, multiply, compare, convert. First
// with the vector extensions of GCC and Clang, then as plain loops for any other compiler.
#pragma once

#include <cstddef>
#include <cstring>

#include "instruction_set.hpp"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if !defined(GRADSCORE_BYTES) || !defined(GRADSCORE_ROWS)
#error "only the sources of a level include this: see instruction_set.hpp"
#endif

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector) && !defined(GRADSCORE_PLAIN_VECTORS)
#define GRADSCORE_SHUFFLE 1
#endif
#endif

namespace gradscore::GRADSCORE_LEVEL {

constexpr int kRows = GRADSCORE_ROWS;
constexpr int kDoubles = GRADSCORE_BYTES / sizeof(double);

#if defined(__GNUC__) && !defined(GRADSCORE_PLAIN_VECTORS)
#define GRADSCORE_INLINE inline __attribute__((always_inline))
#define GRADSCORE_UNROLL _Pragma("GCC unroll 16")

template <class T, int W>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * W)));
};
template <class T, int W>
using Vector = typename VectorOf<T, W>::type;

template <class T, int W>
GRADSCORE_INLINE Vector<T, W> load(const T* from) {
  Vector<T, W> x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

template <class T, int W>
GRADSCORE_INLINE void store(T* to, Vector<T, W> x) {
  std::memcpy(to, &x, sizeof x);
}

template <class T, int W>
GRADSCORE_INLINE void split(Vector<T, W> x, Vector<T, W / 2> (&half)[2]) {
  std::memcpy(half, &x, sizeof x);
}

template <class T, int W>
GRADSCORE_INLINE Vector<T, W> fill(T value) {
  return value - Vector<T, W>{};  // x - 0 is x, so that nothing but a broadcast is left; x + 0 is not, for x = -0
}

template <int W, class V>
GRADSCORE_INLINE Vector<double, W> widen(V x) {
#if defined(__AVX512F__)
  if constexpr (W == 8 && sizeof(V) == 32) return _mm512_cvtps_pd((__m256)x);  // GCC would convert it by halves
#endif
  return __builtin_convertvector(x, Vector<double, W>);
}

template <int W>
GRADSCORE_INLINE Vector<double, W> magnitude(Vector<double, W> x) {
  return (Vector<double, W>)((Vector<long long, W>)x & 0x7fff'ffff'ffff'ffffLL);
}
template <int W>
GRADSCORE_INLINE Vector<float, W> magnitude(Vector<float, W> x) {
  return (Vector<float, W>)((Vector<int, W>)x & 0x7fff'ffff);
}

// Comparisons with NaN are false, so NaN is passed over: the sums tell of it. Compilers do not make the machine's
// minimum of this select, as it differs for signed zeros.
template <class T, int W>
GRADSCORE_INLINE Vector<T, W> smaller(Vector<T, W> x, Vector<T, W> known) {
  constexpr int bytes = W * sizeof(T);
  constexpr bool single = sizeof(T) == sizeof(float);
#if defined(__SSE2__)
  if constexpr (bytes == 16 && single) return _mm_min_ps(x, known);
  if constexpr (bytes == 16 && !single) return _mm_min_pd(x, known);
#endif
#if defined(__AVX__)
  if constexpr (bytes == 32 && single) return _mm256_min_ps(x, known);
  if constexpr (bytes == 32 && !single) return _mm256_min_pd(x, known);
#endif
#if defined(__AVX512F__)
  if constexpr (bytes == 64 && single) return _mm512_min_ps(x, known);
  if constexpr (bytes == 64 && !single) return _mm512_min_pd(x, known);
#endif
  return x < known ? x : known;
}
template <class T, int W>
GRADSCORE_INLINE Vector<T, W> larger(Vector<T, W> x, Vector<T, W> known) {
  constexpr int bytes = W * sizeof(T);
  constexpr bool single = sizeof(T) == sizeof(float);
#if defined(__SSE2__)
  if constexpr (bytes == 16 && single) return _mm_max_ps(x, known);
  if constexpr (bytes == 16 && !single) return _mm_max_pd(x, known);
#endif
#if defined(__AVX__)
  if constexpr (bytes == 32 && single) return _mm256_max_ps(x, known);
  if constexpr (bytes == 32 && !single) return _mm256_max_pd(x, known);
#endif
#if defined(__AVX512F__)
  if constexpr (bytes == 64 && single) return _mm512_max_ps(x, known);
  if constexpr (bytes == 64 && !single) return _mm512_max_pd(x, known);
#endif
  return x > known ? x : known;
}

#else  // any other compiler: the same operations as plain loops
#define GRADSCORE_INLINE inline
#define GRADSCORE_UNROLL

template <class T, int W>
struct Vector {
  T lane[W] = {};
  T& operator[](int i) { return lane[i]; }
  T operator[](int i) const { return lane[i]; }
  Vector& operator+=(const Vector& y) { return *this = *this + y; }
  friend Vector operator+(Vector x, const Vector& y) {
    for (int i = 0; i < W; ++i) x.lane[i] += y.lane[i];
    return x;
  }
  friend Vector operator-(Vector x, const Vector& y) {
    for (int i = 0; i < W; ++i) x.lane[i] -= y.lane[i];
    return x;
  }
  friend Vector operator*(Vector x, const Vector& y) {
    for (int i = 0; i < W; ++i) x.lane[i] *= y.lane[i];
    return x;
  }
};

template <class T, int W>
Vector<T, W> load(const T* from) {
  Vector<T, W> x;
  for (int i = 0; i < W; ++i) x.lane[i] = from[i];
  return x;
}

template <class T, int W>
void store(T* to, const Vector<T, W>& x) {
  for (int i = 0; i < W; ++i) to[i] = x.lane[i];
}

template <class T, int W>
void split(const Vector<T, W>& x, Vector<T, W / 2> (&half)[2]) {
  for (int i = 0; i < W; ++i) half[i / (W / 2)][i % (W / 2)] = x.lane[i];
}

template <class T, int W>
Vector<T, W> fill(T value) {
  Vector<T, W> x;
  for (int i = 0; i < W; ++i) x.lane[i] = value;
  return x;
}

template <int W, class V>
Vector<double, W> widen(const V& x) {
  Vector<double, W> y;
  for (int i = 0; i < W; ++i) y.lane[i] = x.lane[i];
  return y;
}

template <class T, int W>
Vector<T, W> smaller(const Vector<T, W>& x, Vector<T, W> known) {
  for (int i = 0; i < W; ++i) known.lane[i] = x.lane[i] < known.lane[i] ? x.lane[i] : known.lane[i];
  return known;
}
template <class T, int W>
Vector<T, W> larger(const Vector<T, W>& x, Vector<T, W> known) {
  for (int i = 0; i < W; ++i) known.lane[i] = x.lane[i] > known.lane[i] ? x.lane[i] : known.lane[i];
  return known;
}
template <int W, class T>
Vector<T, W> magnitude(Vector<T, W> x) {
  for (int i = 0; i < W; ++i) x.lane[i] = x.lane[i] < 0 ? -x.lane[i] : x.lane[i];
  return x;
}
#endif

}  // namespace gradscore::GRADSCORE_LEVEL
