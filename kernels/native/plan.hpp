// Plans: what a kernel must know of its shapes, computed once for any number of batches. ConvTables lists where a
// convolution's weights meet its input; LaneTables the same for an input whose channels lie side by side.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <functional>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels.hpp"
#include "level.hpp"

namespace gradscore {

// Ways to save products that plans may ask for.
struct Tricks {
  std::atomic<bool> winograd{true}, scattered{true};
};
inline Tricks tricks;

inline Index product(const std::vector<Index>& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), Index{1}, std::multiplies<Index>());
}

// Distance of neighbours along each axis of a contiguous array.
inline std::vector<Index> pitches(const std::vector<Index>& sizes) {
  std::vector<Index> pitch(sizes.size(), 1);
  for (std::size_t axis = sizes.size() - 1; axis > 0; --axis) pitch[axis - 1] = pitch[axis] * sizes[axis];
  return pitch;
}

// Offsets of all points of a grid whose axes have `sizes` points, `steps` apart, last axis fastest.
inline std::vector<Index> grid(const std::vector<Index>& sizes, const std::vector<Index>& steps, Index first) {
  std::vector<Index> offsets{first};
  for (std::size_t axis = 0; axis < sizes.size(); ++axis) {
    std::vector<Index> finer;
    finer.reserve(offsets.size() * static_cast<std::size_t>(sizes[axis]));
    for (const Index offset : offsets) {
      for (Index i = 0; i < sizes[axis]; ++i) finer.push_back(offset + i * steps[axis]);
    }
    offsets = std::move(finer);
  }
  return offsets;
}

class ConvTables {
 public:
  ConvTables(Index channels, Index filters, const std::vector<Index>& input, const std::vector<Index>& output,
             const Geometry& g) {
    const std::size_t rank = input.size();
    const bool padded = std::any_of(g.pads.begin(), g.pads.end(), [](Index p) { return p > 0; });
    std::vector<Index> extent = input;
    for (std::size_t axis = 0; axis < rank && padded; ++axis) extent[axis] += g.pads[axis] + g.pads[rank + axis];
    const std::vector<Index> pitch = pitches(extent);
    std::vector<Index> dilated = pitch, strided = pitch;
    Index first = 0;  // where only crops are asked for, the tables skip what is cropped
    for (std::size_t axis = 0; axis < rank; ++axis) {
      dilated[axis] *= g.dilations[axis];
      strided[axis] *= g.strides[axis];
      if (!padded) first -= g.pads[axis] * pitch[axis];
    }
    if (padded) plan_segments(input, extent, g.pads);
    std::vector<Index> sizes{channels / g.groups}, steps{product(extent)};
    sizes.insert(sizes.end(), g.kernel.begin(), g.kernel.end());
    steps.insert(steps.end(), dilated.begin(), dilated.end());
    row_ = grid(sizes, steps, 0);
    position_ = grid(output, strided, first);
    const std::vector<Index> ones(rank, 1);
    const bool square =
        tricks.winograd && g.kernel == std::vector<Index>{3, 3} && g.strides == ones && g.dilations == ones;
    plan_.groups = g.groups;
    plan_.channels = channels / g.groups;
    plan_.filters = filters / g.groups;
    plan_.kernel_size = product(g.kernel);
    plan_.positions = product(output);
    plan_.plane = product(input);
    plan_.padded_plane = product(extent);
    plan_.padded = padded;
    plan_.segments = segments_.data();
    plan_.segment_count = static_cast<Index>(segments_.size());
    plan_.row = row_.data();
    plan_.position = position_.data();
    if (square) {
      plan_.rows = output[0];
      plan_.columns = output[1];
      plan_.pitch = pitch[0];
    }
  }
  ConvTables(const ConvTables&) = delete;
  ConvTables& operator=(const ConvTables&) = delete;

  const ConvPlan& plan() const { return plan_; }

 private:
  // The rows (last axis) of the input that lie inside the padded plane, less what a negative pad crops.
  void plan_segments(const std::vector<Index>& input, const std::vector<Index>& extent,
                     const std::vector<Index>& pads) {
    const std::size_t rank = input.size();
    std::vector<Index> kept = input;
    const std::vector<Index> from = pitches(input), to = pitches(extent);
    Index source = 0, target = 0;
    for (std::size_t axis = 0; axis < rank; ++axis) {
      const Index begin = pads[axis], crop = std::max<Index>(-begin, 0);
      kept[axis] = std::max<Index>(kept[axis] - crop - std::max<Index>(-pads[rank + axis], 0), 0);
      source += crop * from[axis];
      target += std::max<Index>(begin, 0) * to[axis];
    }
    const Index length = kept.back();
    kept.back() = 1;
    const std::vector<Index> sources = grid(kept, from, source), targets = grid(kept, to, target);
    for (std::size_t i = 0; i < sources.size() && length > 0; ++i) {
      segments_.push_back({sources[i], targets[i], length});
    }
  }

  std::vector<Segment> segments_;
  std::vector<Index> row_, position_;
  ConvPlan plan_{};
};

// An input rearranged for a convolution. `unfolded`: a cell's numbers are those of all its channels and of all places
// of the kernel but along the last axis, so that few channels fill vectors too; else those of its channels.
class LaneTables {
 public:
  LaneTables(const ConvPlan& plan, const Geometry& g, bool unfolded) {
    const Index across = g.dilations.back() == 1 ? g.kernel.back() : 1;  // places of the kernel that are neighbours
    const Index places = plan.kernel_size / across;
    for (Index i = 0; i < (unfolded ? places : 1); ++i) {
      for (Index c = 0; c < plan.channels; ++c) lane_.push_back(plan.row[i * across] + c * plan.padded_plane);
    }
    const Index lanes = static_cast<Index>(lane_.size());
    for (Index i = 0; i < (unfolded ? 1 : places); ++i) runs_.push_back(plan.row[i * across] * lanes);
    for (Index t = 0; t < plan.positions; ++t) place_.push_back(plan.position[t] * lanes);
    const Index cells = plan.position[plan.positions - 1] + runs_.back() / lanes + across;
    for (Index t = 0; t < plan.positions; ++t) own_.push_back(t);
    plan_.lanes = lanes;
    plan_.cells = cells;
    plan_.lane = lane_.data();
    plan_.place = place_.data();
    plan_.own = own_.data();
    plan_.run = across * lanes;
    plan_.run_count = static_cast<Index>(runs_.size());
    plan_.runs = runs_.data();
    plan_.scattered = tricks.scattered;
  }
  LaneTables(const LaneTables&) = delete;
  LaneTables& operator=(const LaneTables&) = delete;

  const LanePlan& plan() const { return plan_; }

  // Numbers that one filter's weights take in the order of a receptive field, each run up to a whole line.
  template <class T>
  Index weights_of_one() const {
    return plan_.run_count * ((plan_.run + kLine<T> - 1) / kLine<T> * kLine<T>);
  }

  // Weights [filters][channels][kernel_size] in that order, among zeros.
  template <class T>
  void order_weights(const T* given, const ConvPlan& plan, Index filters, T* ordered) const {
    const Index line = weights_of_one<T>() / plan_.run_count, across = plan_.run / plan_.lanes;
    for (Index filter = 0; filter < filters; ++filter, ordered += plan_.run_count * line) {
      for (Index channel = 0; channel < plan.channels; ++channel) {
        for (Index run = 0; run < plan_.run_count; ++run) {
          for (Index i = 0; i < across; ++i) ordered[run * line + i * plan_.lanes + channel] = *given++;
        }
      }
    }
  }

  // Number of vectors that hold a receptive field.
  Index vectors(Index width) const { return plan_.run_count * ((plan_.run + width - 1) / width); }

 private:
  std::vector<Index> lane_, place_, own_, runs_;
  LanePlan plan_{};
};

}  // namespace gradscore
