// How outputs (filters, or units of a dense layer) are spread over the lanes of vectors.
#pragma once

#include "instruction_set.hpp"
#include "level.hpp"
#include "simd.hpp"

namespace gradscore::GRADSCORE_LEVEL {

template <class T>
constexpr int kWidth = GRADSCORE_BYTES / sizeof(T);

// Call `work` with the widest block of lanes that `left` outputs fill well: two vectors, one, a half or a quarter.
template <class T, class Work>
Index one_block(Index left, Work&& work) {
  constexpr int W = kWidth<T>;
  constexpr int half = W >= 8 ? W / 2 : W, quarter = W >= 16 ? W / 4 : half;
  if (left > W) {
    work.template run<W, 2>(left < 2 * W ? left : 2 * W);
    return 2 * W;
  }
  if (left > half) {
    work.template run<W, 1>(left);
  } else if (left > quarter) {
    work.template run<half, 1>(left);
  } else {
    work.template run<quarter, 1>(left);
  }
  return left;
}

constexpr Index round_up(Index value, Index step) { return (value + step - 1) / step * step; }

}  // namespace gradscore::GRADSCORE_LEVEL
