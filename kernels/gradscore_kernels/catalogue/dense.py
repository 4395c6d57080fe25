"""Dense layers: at one position, where the gradient factorises, and at many."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._checks import kernel
from gradscore_kernels.backends.registry import run
from gradscore_kernels.catalogue.spec import Attributes, KernelSpec

Accumulators = NDArray[np.float64]
Array = NDArray[Any]


@kernel(a="B n", delta="B m")
def outer_moments(a: Array, delta: Array, *, backend: str = "auto", threads: int | None = None) -> Accumulators:
    """Return accumulators of a dense layer's weight gradient G = δ aᵀ, without forming it.

    Equivalent to `direct_moments(np.einsum("bm,bn->bmn", delta, a))` in float64, but in O(m + n): Σ|g| and Σg factorise,
    the extremes are products of extremes, and the central moments follow from those of a and δ.

    Parameters
    ----------
    a
        The layer's input `[B, n]`.
    delta
        The output gradient δ `[B, m]`.

    Returns
    -------
    NDArray
        Accumulators, float64 `[B, 8]`.

    Raises
    ------
    KernelError
        The arrays do not fit one another, or the back end cannot run here.
    """
    return run("outer_moments", a, delta, backend=backend, threads=threads)


@kernel(a="B T n", delta="B T m")
def sequence_moments(a: Array, delta: Array, *, backend: str = "auto", threads: int | None = None) -> Accumulators:
    """Return accumulators of G = Σ_t δ_t a_tᵀ, the weight gradient of a dense layer at T positions.

    Equivalent to `direct_moments(np.einsum("btm,btn->bmn", delta, a))`. A masked position adds nothing if its δ is zero.

    Parameters
    ----------
    a
        The layer's input `[B, T, n]`.
    delta
        The output gradient δ `[B, T, m]`.

    Returns
    -------
    NDArray
        Accumulators, float64 `[B, 8]`.

    Raises
    ------
    KernelError
        The arrays do not fit one another, or the back end cannot run here.
    """
    return run("sequence_moments", a, delta, backend=backend, threads=threads)


def outer_gradient(a: Array, delta: Array) -> Array:
    """Return G = δ aᵀ `[B, m, n]`."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.einsum("bm,bn->bmn", delta.astype(np.float64), a.astype(np.float64)))


def sequence_gradient(a: Array, delta: Array) -> Array:
    """Return G = Σ_t δ_t a_tᵀ `[B, m, n]`."""
    return np.asarray(np.einsum("btm,btn->bmn", delta.astype(np.float64), a.astype(np.float64)))


def _as_weight(gradient: Array, attributes: Attributes) -> Array:
    """Give `[B, m, n]` the axes of the weight: the same, or `[B, n, m]` if its outputs stand last."""
    return gradient if attributes.get("outputs_first") else gradient.swapaxes(1, 2)


SPECS = (
    KernelSpec(
        "outer", outer_moments, ("activation", "delta"), outer_gradient, arranged=_as_weight, takes_activation=True
    ),
    KernelSpec(
        "sequence", sequence_moments, ("activation", "delta"), sequence_gradient, arranged=_as_weight,
        takes_activation=True,
    ),
)  # fmt: skip
