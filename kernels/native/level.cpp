// All kernels for one instruction set: built once for each level, with the definitions that instruction_set.hpp lists
// and GRADSCORE_TABLE, the name of the level's table. Nothing but that table may leave this file.
#include "level.hpp"

#include "instruction_set.hpp"
#include "products.hpp"
#include "scattered.hpp"
#include "sums.hpp"

namespace gradscore {
namespace GRADSCORE_LEVEL {

template <class T>
constexpr Kernels<T> table() {
  return {
      outer<T>,          conv_scratch<T>,
      conv<T>,           unpooled_conv_scratch<T>,
      unpooled_conv<T>,  unpooled_input_scratch<T>,
      unpooled_input<T>, sequence_scratch<T>,
      sequence<T>,       direct<T>,
      position_sum<T>,   sequence_sum<T>,
      embedding<T>,
  };
}

}  // namespace GRADSCORE_LEVEL

#define GRADSCORE_TEXT(x) #x
#define GRADSCORE_NAME(x) GRADSCORE_TEXT(x)
extern const Level GRADSCORE_TABLE;
const Level GRADSCORE_TABLE = {GRADSCORE_NAME(GRADSCORE_LEVEL), GRADSCORE_LEVEL::table<float>(),
                               GRADSCORE_LEVEL::table<double>()};

}  // namespace gradscore
