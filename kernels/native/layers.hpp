// Accumulators of a network's parameters -> statistics of its layers and of all together.
#pragma once

#include <vector>

#include "level.hpp"

namespace gradscore {

// parts[i] is [batch, kAccumulator] and belongs to layer[i], counted from 0 without a gap; scale is [batch].
// out is [batch, layers + 1, 8]: what depends on the gradient's size times the scale.
void layer_statistics(const std::vector<const double*>& parts, const std::vector<Index>& layer, const double* scale,
                      Index batch, double* out);

}  // namespace gradscore
