"""Dense layers: one position, whose gradient factorises, and many."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._backends import run
from gradscore_kernels._checks import kernel
from gradscore_kernels.catalogue.spec import Attributes, KernelSpec

Accumulators = NDArray[np.float64]
Array = NDArray[Any]


@kernel(a="B n", delta="B m")
def outer_moments(a: Array, delta: Array, *, backend: str = "auto", threads: int | None = None) -> Accumulators:
    """Accumulators of G = δ aᵀ per sample: a dense layer's weight gradient, without forming it.

    Equivalent to `direct_moments(np.einsum("bm,bn->bmn", delta, a))` in float64, in O(m + n): Σ|g| and Σg factorise,
    extrema are among the products of extremes, central moments follow from those of a and δ.

    Parameters
    ----------
    a
        The layer's input `[B, n]`.
    delta
        The loss's derivative by the layer's output `[B, m]`.
    """
    return run("outer_moments", a, delta, backend=backend, threads=threads)


@kernel(a="B T n", delta="B T m")
def sequence_moments(a: Array, delta: Array, *, backend: str = "auto", threads: int | None = None) -> Accumulators:
    """Accumulators of G = Σ_t δ_t a_tᵀ per sample: a dense layer applied at T positions.

    Equivalent to `direct_moments(np.einsum("btm,btn->bmn", delta, a))`. Positions that a mask left out count nothing
    if their δ is zero.

    Parameters
    ----------
    a
        The layer's input `[B, T, n]`.
    delta
        The loss's derivative by the layer's output `[B, T, m]`.
    """
    return run("sequence_moments", a, delta, backend=backend, threads=threads)


def outer_gradient(a: Array, delta: Array) -> Array:
    """Return G = δ aᵀ `[B, m, n]`."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(delta.astype(np.float64)[:, :, None] * a.astype(np.float64)[:, None, :])


def sequence_gradient(a: Array, delta: Array) -> Array:
    """Return G = Σ_t δ_t a_tᵀ `[B, m, n]`."""
    return np.asarray(np.einsum("btm,btn->bmn", delta.astype(np.float64), a.astype(np.float64)))


def _as_weight(gradient: Array, attributes: Attributes) -> Array:
    """Turn `[B, m, n]` into the weight's axes: those, or `[B, n, m]` where its outputs stand last."""
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
