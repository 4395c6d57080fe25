// Samples shared among threads. Which thread takes which sample is left to chance; no result depends on it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "level.hpp"
#include "scratch.hpp"

namespace gradscore {

// A block of zeroed memory for one thread, laid out by a Layout.
class Scratch {
 public:
  explicit Scratch(std::size_t bytes) {
    if (bytes >= common::Layout::kTooMuch) throw std::bad_alloc();
    std::size_t space = bytes + common::kAlignment;
    memory_.reset(std::calloc(space, 1));
    if (!memory_) throw std::bad_alloc();
    block_ = memory_.get();
    std::align(common::kAlignment, bytes, block_, space);
  }
  void* block() const { return block_; }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  void* block_;
};

// Call work(sample, scratch block) for every sample. `cost` is a sample's number of multiply-adds: a thread must be
// worth more than starting it. Memory is taken before any thread starts, so that work cannot throw.
template <class Work>
void for_each_sample(Index batch, Index cost, int threads, std::size_t scratch_bytes, const Work& work) {
  constexpr Index worth = 1 << 20;
  const Index useful = std::min({static_cast<Index>(threads), batch, batch * cost / worth});
  std::vector<Scratch> scratch;
  for (Index i = 0; i < std::max<Index>(1, useful); ++i) scratch.emplace_back(scratch_bytes);
  std::atomic<Index> next{0};
  const auto serve = [&](const Scratch& own) {
    for (Index sample = next++; sample < batch; sample = next++) work(sample, own.block());
  };
  std::vector<std::thread> helpers;
  helpers.reserve(scratch.size());
  try {
    for (std::size_t i = 1; i < scratch.size(); ++i) helpers.emplace_back(serve, std::cref(scratch[i]));
  } catch (const std::system_error&) {
    // No more threads to be had: those that started, and this one, do the work.
  }
  serve(scratch[0]);
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace gradscore
