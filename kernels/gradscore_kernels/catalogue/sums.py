"""Gradients that are known per sample already, or are sums of δ over positions."""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._checks import kernel
from gradscore_kernels.backends.registry import run
from gradscore_kernels.catalogue.spec import KernelSpec

Accumulators = NDArray[np.float64]
Array = NDArray[Any]


@kernel(g="B *")
def direct_moments(g: Array, *, backend: str = "auto", threads: int | None = None) -> Accumulators:
    """Return accumulators of a gradient `[B, ...]` that is known per sample already, in one pass over memory.

    Returns
    -------
    NDArray
        Accumulators, float64 `[B, 8]`.

    Raises
    ------
    KernelError
        The array holds no gradient, or the back end cannot run here.
    """
    return run("direct_moments", g.reshape(g.shape[0], max(1, prod(g.shape[1:]))), backend=backend, threads=threads)


def whole_moments(gradient: Array, *, backend: str = "auto", threads: int | None = None) -> Accumulators:
    """Return accumulators `[1, 8]` of a gradient without a batch axis: that of a batch of one sample."""
    return direct_moments(gradient.reshape(1, -1), backend=backend, threads=threads)


@kernel(delta="B M *positions")
def position_sum_moments(delta: Array, *, backend: str = "auto", threads: int | None = None) -> Accumulators:
    """Return accumulators of Σ_t δ_t for channels-first δ `[B, M, *positions]`: a convolution's bias gradient.

    Returns
    -------
    NDArray
        Accumulators, float64 `[B, 8]`.

    Raises
    ------
    KernelError
        The array holds no gradient, or the back end cannot run here.
    """
    count, channels = delta.shape[:2]
    return run(
        "position_sum_moments", delta.reshape(count, channels, prod(delta.shape[2:])), backend=backend, threads=threads
    )


@kernel(delta="B T m")
def sequence_sum_moments(delta: Array, *, backend: str = "auto", threads: int | None = None) -> Accumulators:
    """Return accumulators of Σ_t δ_t for channels-last δ `[B, T, m]`: a dense layer's bias gradient over T positions.

    Returns
    -------
    NDArray
        Accumulators, float64 `[B, 8]`.

    Raises
    ------
    KernelError
        The array holds no gradient, or the back end cannot run here.
    """
    return run("sequence_sum_moments", delta, backend=backend, threads=threads)


def direct_gradient(g: Array) -> Array:
    """Return G = δ."""
    return g.astype(np.float64)


def whole_gradient(g: Array) -> Array:
    """Return G = δ `[1, …]` of the only sample."""
    return g.astype(np.float64)[None]


def position_sum_gradient(delta: Array) -> Array:
    """Return G = Σ_t δ_t `[B, M]`, channels first."""
    with np.errstate(invalid="ignore"):
        return np.asarray(delta.reshape(*delta.shape[:2], prod(delta.shape[2:])).sum(2, dtype=np.float64))


def sequence_sum_gradient(delta: Array) -> Array:
    """Return G = Σ_t δ_t `[B, m]`, channels last."""
    with np.errstate(invalid="ignore"):
        return np.asarray(delta.sum(1, dtype=np.float64))


SPECS = (
    KernelSpec("direct", direct_moments, ("delta",), direct_gradient),
    KernelSpec("position_sum", position_sum_moments, ("delta",), position_sum_gradient),
    KernelSpec("sequence_sum", sequence_sum_moments, ("delta",), sequence_sum_gradient),
    KernelSpec("whole", whole_moments, ("delta",), whole_gradient),
)
