"""Statistics of per-sample weight gradients, without ever holding those gradients for a batch.

Every kernel takes what back-propagation leaves at one layer: the layer's input `a` and the output gradient `delta`, one
row per sample. It returns float64 accumulators `[B, 8]` of each sample's gradient: n, Σ|g|, mean, M2, M3, M4, min, max,
with Mk = Σ(g − mean)^k. `merge` joins the accumulators of several parameters. `statistics` turns accumulators into the
eight statistics. Only `unpooled_conv_input` returns something else: the output gradient of the layer in front of a
convolution. A `Program` runs the kernels of a whole network in one call per batch.

All kernels share these rules:

- Arrays are float32 or float64. Other memory layouts are copied to C order. Mixed types are computed in float64.
- Sums over positions are kept in the arrays' own type, in short runs, as a matrix product does. They are kept in float64
  where the rounding of single precision would show: in gradients of fewer than 32 numbers, and in samples whose numbers
  lie close together but far from 0. So skewness and kurtosis are correct to 1e-5 even if the mean is a hundred standard
  deviations.
- The native back end also sums the powers of such sums in single precision, over runs of a few hundred numbers.
  Everything else is float64.
- `backend` is "auto" (native, else numba) or one of `available_backends()`.
- `threads` is the number of threads that share the samples (None: `usable_cores()`). Neither it nor the rest of the batch
  changes a bit of a sample's result.
- The back end cuda reduces arrays in device memory where they lie. It knows them by the CUDA array interface (torch, CuPy,
  numba).
- If a sample's gradient holds NaN or Inf, its row is NaN except for n. No other row changes.
- Wrong shapes, wrong types and back ends that cannot run raise `KernelError`.
"""

from gradscore_kernels._accumulators import ACCUMULATORS, STATISTICS, merge, statistics
from gradscore_kernels._cores import usable_cores
from gradscore_kernels._errors import KernelError
from gradscore_kernels._geometry import ConvGeometry, PoolGeometry
from gradscore_kernels._network import layer_statistics, softmax_features
from gradscore_kernels._program import Program, Step
from gradscore_kernels.backends.registry import BACKENDS, available_backends, default_backend, simd_level, simd_levels
from gradscore_kernels.catalogue import BACKSTEP, KERNELS, KernelSpec
from gradscore_kernels.catalogue.convolution import conv_moments, unpooled_conv_input, unpooled_conv_moments
from gradscore_kernels.catalogue.dense import outer_moments, sequence_moments
from gradscore_kernels.catalogue.embedding import embedding_moments
from gradscore_kernels.catalogue.sums import direct_moments, position_sum_moments, sequence_sum_moments

__all__ = [
    "ACCUMULATORS",
    "BACKENDS",
    "BACKSTEP",
    "KERNELS",
    "STATISTICS",
    "ConvGeometry",
    "KernelError",
    "KernelSpec",
    "PoolGeometry",
    "Program",
    "Step",
    "available_backends",
    "conv_moments",
    "default_backend",
    "direct_moments",
    "embedding_moments",
    "layer_statistics",
    "merge",
    "outer_moments",
    "position_sum_moments",
    "sequence_moments",
    "sequence_sum_moments",
    "simd_level",
    "simd_levels",
    "softmax_features",
    "statistics",
    "unpooled_conv_input",
    "unpooled_conv_moments",
    "usable_cores",
]
