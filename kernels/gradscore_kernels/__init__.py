"""Statistics of per-sample weight gradients, without ever holding those gradients for a batch.

Every kernel takes what back-propagation leaves at one layer (its input `a` and the loss's derivative `delta` by its
output, one row per sample) and returns float64 accumulators `[B, 8]`: n, Σ|g|, mean, M2, M3, M4, min, max of that
sample's gradient, with Mk = Σ(g − mean)^k. Accumulators of several parameters merge; `statistics` turns them into numbers.
"""

from gradscore_kernels._accumulators import ACCUMULATORS, STATISTICS, merge, statistics
from gradscore_kernels._api import (
    conv_moments,
    direct_moments,
    embedding_moments,
    outer_moments,
    position_sum_moments,
    sequence_moments,
    sequence_sum_moments,
)
from gradscore_kernels._backends import available_backends, default_backend, simd_level, simd_levels
from gradscore_kernels._errors import KernelError
from gradscore_kernels._geometry import ConvGeometry

__all__ = [
    "ACCUMULATORS",
    "STATISTICS",
    "ConvGeometry",
    "KernelError",
    "available_backends",
    "conv_moments",
    "default_backend",
    "direct_moments",
    "embedding_moments",
    "merge",
    "outer_moments",
    "position_sum_moments",
    "sequence_moments",
    "sequence_sum_moments",
    "simd_level",
    "simd_levels",
    "statistics",
]
