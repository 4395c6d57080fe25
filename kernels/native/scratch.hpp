// The layout of a kernel's scratch memory: regions are reserved one after the other, by type and size, and found again
// in every block of memory that holds them all.
#pragma once

#include <cstddef>

#include "instruction_set.hpp"
#include "level.hpp"

namespace gradscore::GRADSCORE_LEVEL {

constexpr std::size_t kAlignment = 64;  // of blocks and regions: a cache line, and the widest vector

// `count` numbers of type T in a block.
template <class T>
struct Region {
  std::size_t offset = 0;  // bytes
  Index count = 0;

  T* in(void* block) const { return static_cast<T*>(static_cast<void*>(static_cast<char*>(block) + offset)); }
};

class Layout {
 public:
  static constexpr std::size_t kTooMuch = std::size_t{1} << (8 * sizeof(std::size_t) - 2);  // bytes no machine has

  // Room for rows * columns numbers, on cache lines of its own.
  template <class T>
  Region<T> reserve(Index rows, Index columns = 1) {
    const Index most = static_cast<Index>((kTooMuch - bytes_) / sizeof(T));
    if (rows > 0 && columns > most / rows) {
      bytes_ = kTooMuch;
      return {};
    }
    const Region<T> region{bytes_, rows * columns};
    const std::size_t size = static_cast<std::size_t>(region.count) * sizeof(T);
    bytes_ += (size + kAlignment - 1) / kAlignment * kAlignment;
    return region;
  }

  // Size of a block; kTooMuch if that or more would be needed.
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_ = 0;
};

}  // namespace gradscore::GRADSCORE_LEVEL
