// Accumulators of a network's parameters -> statistics of its layers and of all together; logits -> what they tell.
#pragma once

#include <cstdint>
#include <vector>

#include "level.hpp"

namespace gradscore {

// parts[i] is [batch, kAccumulator] and belongs to layer[i], counted from 0 without a gap; scale is [batch].
// out is [batch, layers + 1, 8]: what depends on the gradient's size times the scale.
void layer_statistics(const std::vector<const double*>& parts, const std::vector<Index>& layer, const double* scale,
                      Index batch, double* out);

// Entropy over log q, maximum softmax and residual of predictions: logits are [batch, classes], out is [batch, 3].
void softmax_features(const double* logits, const std::int64_t* labels, Index batch, Index classes, double* out);

}  // namespace gradscore
