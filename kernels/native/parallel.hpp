// Samples shared among threads. Which thread takes which sample is left to chance; no result depends on it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "level.hpp"

namespace gradscore {

constexpr std::size_t kAlignment = 64;

// Zeroed memory for one thread, aligned to the widest vector.
class Scratch {
 public:
  explicit Scratch(std::size_t bytes) : memory_(static_cast<char*>(std::calloc(bytes + kAlignment, 1))) {
    if (!memory_) throw std::bad_alloc();
    const std::size_t over = reinterpret_cast<std::uintptr_t>(memory_.get()) % kAlignment;
    start_ = memory_.get() + (over ? kAlignment - over : 0);
  }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(start_);
  }

 private:
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  std::unique_ptr<char, Free> memory_;
  char* start_;
};

// Call work(sample, scratch) for every sample. `cost` is a sample's number of multiply-adds: a thread must be worth
// more than starting it. Memory is taken before any thread starts, so that work cannot throw.
template <class Work>
void for_each_sample(Index batch, double cost, int threads, std::size_t scratch_bytes, const Work& work) {
  constexpr double worth = 1 << 20;
  const double useful = std::min({static_cast<double>(threads), static_cast<double>(batch), batch * cost / worth});
  std::vector<Scratch> scratch;
  for (int i = 0; i < std::max(1, static_cast<int>(useful)); ++i) scratch.emplace_back(scratch_bytes);
  std::atomic<Index> next{0};
  const auto serve = [&](const Scratch& own) {
    for (Index sample = next++; sample < batch; sample = next++) work(sample, own);
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
