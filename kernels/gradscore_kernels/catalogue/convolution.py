"""Convolutions: δ is known at the output, or only behind a max pool."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._checks import kernel
from gradscore_kernels._errors import KernelError
from gradscore_kernels._geometry import ConvGeometry, PoolGeometry
from gradscore_kernels.backends.registry import run
from gradscore_kernels.catalogue.convolution_formulas import conv_gradient, conv_input, unpooled_conv_gradient
from gradscore_kernels.catalogue.geometry_checks import check_geometry, check_pool
from gradscore_kernels.catalogue.spec import Attributes, KernelSpec

Accumulators = NDArray[np.float64]
Array = NDArray[Any]

_conv_geometry = lru_cache(ConvGeometry)  # to check a geometry costs about as much as to score a small batch
_pool_geometry = lru_cache(PoolGeometry)


@kernel(a="B C *in", delta="B M *out")
def conv_moments(
    a: Array, delta: Array, geometry: ConvGeometry, *, backend: str = "auto", threads: int | None = None
) -> Accumulators:
    """Return accumulators of a convolution's weight gradient `[M, C / groups, *kernel]`.

    Equivalent to `direct_moments` of `torch.nn.grad.conv2d_weight`, one sample at a time. For `ConvTranspose` swap the
    roles of a and δ (see `ConvGeometry`).

    Parameters
    ----------
    a
        The layer's input `[B, C, *in]`.
    delta
        The output gradient δ `[B, M, *out]`.
    geometry
        Kernel, strides, dilations, pads and groups.

    Returns
    -------
    NDArray
        Accumulators, float64 `[B, 8]`.

    Raises
    ------
    KernelError
        The arrays do not fit the geometry or one another, or the back end cannot run here.
    """
    check_geometry("conv_moments", {"a": a, "delta": delta}, geometry)
    return run("conv_moments", a, delta, geometry, backend=backend, threads=threads)


@kernel(a="B C *in", activation="B M *out", pooled_delta="B M *pooled")
def unpooled_conv_moments(
    a: Array,
    activation: Array,
    pooled_delta: Array,
    geometry: ConvGeometry,
    pool: PoolGeometry,
    *,
    backend: str = "auto",
    threads: int | None = None,
) -> Accumulators:
    """Return accumulators of a convolution's weight gradient where δ is known only behind a max pool.

    Equivalent to `conv_moments(a, delta, geometry)` with this `delta`: each window's `pooled_delta` is added at the first
    maximum of the window in `activation`, and all else is zero. First means row-major, as in ONNX `MaxPool`'s Indices and
    torch. This full-size δ exists for a few samples at a time only. A window that holds NaN makes its sample's row NaN.

    Parameters
    ----------
    a
        The convolution's input `[B, C, *in]`.
    activation
        The input of the max pool `[B, M, *out]`: the convolution's output, or a non-decreasing function of it. The slope
        of that function must be part of `pooled_delta` already.
    pooled_delta
        The output gradient of the max pool `[B, M, *pooled]`.
    geometry
        The convolution's kernel, strides, dilations, pads and groups.
    pool
        The max pool's kernel, strides, dilations and pads.

    Returns
    -------
    NDArray
        Accumulators, float64 `[B, 8]`.

    Raises
    ------
    KernelError
        The arrays do not fit the geometries or one another, or the back end cannot run here.
    """
    name = "unpooled_conv_moments"
    check_geometry(name, {"a": a, "activation": activation}, geometry)
    check_pool(name, activation, pooled_delta, pool)
    return run("unpooled_conv_moments", a, activation, pooled_delta, geometry, pool, backend=backend, threads=threads)


@kernel(a="B C *in", activation="B M *out", pooled_delta="B M *pooled", weight="M c *kernel")
def unpooled_conv_input(
    a: Array,
    activation: Array,
    pooled_delta: Array,
    weight: Array,
    geometry: ConvGeometry,
    pool: PoolGeometry,
    slope: float,
    *,
    backend: str = "auto",
    threads: int | None = None,
) -> Array:
    """Return δ in front of a convolution and its activation, where δ is known only behind a max pool.

    Equivalent to `torch.nn.grad.conv2d_input` with `delta` as in `unpooled_conv_moments`, in the arrays' own type. The
    result is multiplied by 1 where `a` is positive, and by `slope` elsewhere: the derivative of the (leaky) ReLU that made
    `a`. A slope of 1 means that there is no activation. If a max pool made `a` from the activation's output, the result is
    the `pooled_delta` of that max pool.

    Parameters
    ----------
    a, activation, pooled_delta, geometry, pool
        As in `unpooled_conv_moments`.
    weight
        The convolution's weight `[M, C / groups, *kernel]`.
    slope
        The activation's slope at 0 and below.

    Returns
    -------
    NDArray
        `[B, C, *in]`, in the arrays' type. It lies in device memory if `a` does.

    Raises
    ------
    KernelError
        The arrays do not fit the geometries or one another, or the back end cannot run here.
    """
    name = "unpooled_conv_input"
    check_geometry(name, {"a": a, "activation": activation}, geometry)
    check_pool(name, activation, pooled_delta, pool)
    expected = (activation.shape[1], a.shape[1] // geometry.groups, *geometry.kernel)
    if weight.shape != expected:
        raise KernelError(f"{name}: 'weight' has shape {list(weight.shape)}, not {list(expected)}, as {geometry} needs")
    given = (a, activation, pooled_delta, weight, geometry, pool, float(slope))
    return run("unpooled_conv_input", *given, backend=backend, threads=threads)


def _geometry(attributes: Attributes) -> tuple[ConvGeometry]:
    return (_conv_geometry(**_hashable(attributes)),)


def _geometries(attributes: Attributes) -> tuple[ConvGeometry, PoolGeometry]:
    """Read the geometries of the convolution and of the max pool behind it."""
    return *_geometry(attributes["geometry"]), _pool_geometry(**_hashable(attributes["pool"]))


def _geometries_and_slope(attributes: Attributes) -> tuple[ConvGeometry, PoolGeometry, float]:
    return *_geometries(attributes), attributes["slope"]


def _hashable(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()}


SPECS = (
    KernelSpec("conv", conv_moments, ("activation", "delta"), conv_gradient, _geometry, takes_activation=True),
    KernelSpec(
        "unpooled_conv", unpooled_conv_moments, ("activation", "pooled", "delta"), unpooled_conv_gradient, _geometries,
        takes_activation=True,
    ),
)  # fmt: skip

BACKSTEP = KernelSpec(
    "unpooled_conv_input", unpooled_conv_input, ("activation", "pooled", "delta", "weight"), conv_input,
    _geometries_and_slope,
)  # fmt: skip
"""Not a reduction: it returns the output gradient of the layer in front of a convolution."""
