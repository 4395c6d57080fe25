// Jobs run one after the other on a batch, and the statistics of the layers whose gradients they reduce.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "kernels.hpp"
#include "layers.hpp"
#include "level.hpp"

namespace gradscore {

struct Step {
  Job job;
  std::vector<std::size_t> arrays;  // places among the given arrays, and then among those that steps before have made
  Index layer;                      // whose accumulators it gives; −1: it makes an array
  Index size;                       // numbers of that array, for one sample
};

class Program {
 public:
  explicit Program(std::vector<Step> steps) : steps_(std::move(steps)) {
    for (const Step& step : steps_) {
      if (step.layer >= 0) layers_.push_back(step.layer);
    }
  }

  Index layers() const { return layers_.empty() ? 0 : layers_.back() + 1; }

  // out is [batch, layers + 1, 8], as of layer_statistics. Throws std::out_of_range where an array is missing.
  void run(std::vector<const void*> arrays, const double* scale, Index batch, int threads, double* out) const {
    std::vector<std::unique_ptr<float[]>> made;
    std::vector<std::unique_ptr<double[]>> accumulators;
    std::vector<const double*> parts;
    for (const Step& step : steps_) {
      std::vector<const void*> given;
      for (const std::size_t place : step.arrays) given.push_back(arrays.at(place));
      if (step.layer < 0) {
        made.emplace_back(new float[static_cast<std::size_t>(step.size * batch)]);
        step.job(given.data(), batch, threads, made.back().get());
        arrays.push_back(made.back().get());
      } else {
        accumulators.emplace_back(new double[static_cast<std::size_t>(batch * kAccumulator)]);
        step.job(given.data(), batch, threads, accumulators.back().get());
        parts.push_back(accumulators.back().get());
      }
    }
    layer_statistics(parts, layers_, scale, batch, out);
  }

 private:
  std::vector<Step> steps_;
  std::vector<Index> layers_;
};

}  // namespace gradscore
