"""Statistics of per-sample weight gradients, without ever holding those gradients for a batch.

Every kernel takes what back-propagation leaves at one layer (its input `a` and the loss's derivative `delta` by its
output, one row per sample) and returns float64 accumulators `[B, 8]`: n, Σ|g|, mean, M2, M3, M4, min, max of that
sample's gradient, with Mk = Σ(g − mean)^k. Accumulators of several parameters merge; `statistics` makes numbers of
them. `unpooled_conv_input` alone returns something else: the derivative that a layer in front of it needs. A `Program`
is the kernels of a whole network, called once a batch.

Common to all kernels: arrays are float32 or float64, converted to C order where they are not; mixed types are
computed in float64. Sums over positions are kept in the arrays' own type, as a matrix product does, in short runs; but
in float64 where it would show what single precision rounds off them, that is for gradients of less than 32 numbers and
samples whose numbers lie close together far from 0. So skewness and kurtosis hold 1e-5 where the mean is a hundred
standard deviations. In the native back end the powers of such sums are summed in single precision, too, over runs of a
few hundred numbers. Everything else is float64. `backend` is "auto" (native, else numba) or one of
`available_backends()`; `threads` shares samples among that many threads (None: all processors) and never changes a bit
of the result, nor does the rest of the batch.
Arrays in device memory, known by the CUDA array interface (torch, CuPy, numba), are reduced there by the back end
cuda. A sample whose gradient holds NaN or Inf gets a row that is NaN but for n; no other row is touched. Wrong
shapes, types or back ends raise `KernelError`.
"""

from gradscore_kernels._accumulators import ACCUMULATORS, STATISTICS, merge, statistics
from gradscore_kernels._backends import BACKENDS, available_backends, default_backend, simd_level, simd_levels
from gradscore_kernels._errors import KernelError
from gradscore_kernels._geometry import ConvGeometry, PoolGeometry
from gradscore_kernels._network import layer_statistics, softmax_features
from gradscore_kernels._program import Program, Step
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
]
