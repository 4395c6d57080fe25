// All kernels for one instruction set. Built once per level: GRADSCORE_LEVEL names it, GRADSCORE_BYTES is its vectors'
// size and GRADSCORE_ROWS the number of weights in a tile that its registers hold.
//
// Nothing but the level's table may leave this file, and no template of the standard library may be used in it: code
// built for one instruction set must never stand in for another's.

#include <cmath>    // INFINITY, NAN
#include <cstring>  // memcpy
#include <type_traits>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "level.hpp"

namespace gradscore {
namespace GRADSCORE_LEVEL {

constexpr int kRows = GRADSCORE_ROWS;
constexpr int kDoubles = GRADSCORE_BYTES / sizeof(double);

#include "accumulator.hpp"

#include "simd.hpp"

#include "moments.hpp"

#include "pack.hpp"

#include "lanes.hpp"

#include "tile.hpp"

#include "winograd.hpp"

#include "products.hpp"

#include "maxima.hpp"

#include "scattered.hpp"

#include "sums.hpp"

template <class T>
constexpr Kernels<T> table() {
  return {outer<T>,
          conv_scratch<T>,
          conv<T>,
          unpooled_conv_scratch<T>,
          unpooled_conv<T>,
          unpooled_input_scratch<T>,
          unpooled_input<T>,
          sequence_scratch<T>,
          sequence<T>,
          direct<T>,
          position_sum<T>,
          sequence_sum<T>,
          embedding<T>};
}

}  // namespace GRADSCORE_LEVEL

#define GRADSCORE_TEXT(x) #x
#define GRADSCORE_NAME(x) GRADSCORE_TEXT(x)
extern const Level GRADSCORE_TABLE;
const Level GRADSCORE_TABLE = {GRADSCORE_NAME(GRADSCORE_LEVEL), GRADSCORE_LEVEL::table<float>(),
                               GRADSCORE_LEVEL::table<double>()};

}  // namespace gradscore
