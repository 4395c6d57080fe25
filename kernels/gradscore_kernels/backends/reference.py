"""The reference back end: float64 NumPy that forms every gradient and follows the definitions.

It uses the formulas of the catalogue. It is slow, and holds batch × parameters numbers in memory.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels.catalogue import BACKSTEP, KERNELS, KernelSpec

Array = NDArray[Any]
Accumulators = NDArray[np.float64]


def moments(gradient: Array) -> Accumulators:
    """Return the accumulators `[B, 8]` of gradients `[B, …]` by their definitions, in two passes."""
    g = gradient.reshape(len(gradient), int(np.prod(gradient.shape[1:])))
    result = np.empty((len(g), 8))
    with np.errstate(invalid="ignore", over="ignore"):
        mean = g.mean(1)
        centred = g - mean[:, None]
        result[:, 0] = g.shape[1]
        result[:, 1] = np.abs(g).sum(1)
        result[:, 2] = mean
        for k in (2, 3, 4):
            result[:, k + 1] = (centred**k).sum(1)
        result[:, 6] = g.min(1)
        result[:, 7] = g.max(1)
    result[~np.isfinite(result[:, 1]), 1:] = np.nan
    return result


def _reducing(spec: KernelSpec) -> Callable[..., Accumulators]:
    def reduced(*arguments: Any) -> Accumulators:
        *given, _threads = arguments
        return moments(spec.gradient(*given))

    return reduced


def _passing_back(*arguments: Any) -> Array:
    *given, _threads = arguments
    return BACKSTEP.gradient(*given)


_FUNCTIONS: dict[str, Callable[..., Array]] = {
    **{spec.function: _reducing(spec) for spec in KERNELS.values()},
    BACKSTEP.function: _passing_back,
}


def __getattr__(name: str) -> Callable[..., Array]:
    """Return the function of a kernel, as an attribute of this module."""
    if name not in _FUNCTIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _FUNCTIONS[name]
