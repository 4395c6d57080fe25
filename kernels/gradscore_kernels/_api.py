"""The kernels: one signature each, checked once, run by the back end asked for."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._accumulators import checked_accumulators
from gradscore_kernels._accumulators import layer_statistics as merged_statistics
from gradscore_kernels._backends import load, workers
from gradscore_kernels._checks import kernel
from gradscore_kernels._errors import KernelError
from gradscore_kernels._geometry import ConvGeometry, PoolGeometry
from gradscore_kernels._softmax import softmax_features as numpy_softmax_features

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
    return load(backend).outer_moments(a, delta, workers(threads))


@kernel(a="B C *in", delta="B M *out")
def conv_moments(
    a: Array, delta: Array, geometry: ConvGeometry, *, backend: str = "auto", threads: int | None = None
) -> Accumulators:
    """Accumulators of a convolution's weight gradient `[M, C / groups, *kernel]` per sample.

    Equivalent to `direct_moments` of `torch.nn.grad.conv2d_weight` one sample at a time. For `ConvTranspose` swap the
    roles of a and δ (see `ConvGeometry`).

    Parameters
    ----------
    a
        The layer's input `[B, C, *in]`.
    delta
        The loss's derivative by the layer's output `[B, M, *out]`.
    geometry
        Kernel, strides, dilations, pads and groups.
    """
    _check_geometry("conv_moments", {"a": a, "delta": delta}, geometry)
    return load(backend).conv_moments(a, delta, geometry, workers(threads))


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
    """Accumulators of a convolution's weight gradient where δ is known only behind a max pooling.

    Equivalent to `conv_moments(a, delta, geometry)` with `delta` zero but where a window of `activation` has its first
    maximum (row-major, as ONNX `MaxPool`'s Indices and torch): there the window's `pooled_delta` is added. That δ, at
    the full resolution, exists for one sample at a time only. A window that holds NaN makes its sample's row NaN.

    Parameters
    ----------
    a
        The convolution's input `[B, C, *in]`.
    activation
        What was pooled `[B, M, *out]`: the convolution's output, or any non-decreasing function of it whose slope
        `pooled_delta` holds already.
    pooled_delta
        The loss's derivative by the pooling's output `[B, M, *pooled]`.
    geometry
        The convolution's kernel, strides, dilations, pads and groups.
    pool
        The pooling's kernel, strides, dilations and pads.
    """
    name = "unpooled_conv_moments"
    _check_geometry(name, {"a": a, "activation": activation}, geometry)
    _check_pool(name, activation, pooled_delta, pool)
    return load(backend).unpooled_conv_moments(a, activation, pooled_delta, geometry, pool, workers(threads))


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
    """Return the loss's derivative by a convolution's input, where δ is known only behind a max pooling.

    Equivalent to `torch.nn.grad.conv2d_input` with `delta` as in `unpooled_conv_moments`, in the arrays' own type and
    times 1 where `a` is positive, else `slope`: the derivative in front of the activation that made `a`, if that is a
    (leaky) ReLU; a slope of 1 stands for none. Where `a` is itself max-pooled from the activation's output, that is the
    pooled derivative in front of it.

    Parameters
    ----------
    a, activation, pooled_delta, geometry, pool
        As in `unpooled_conv_moments`.
    weight
        The convolution's weight `[M, C / groups, *kernel]`.
    slope
        The activation's slope at 0 and below.
    """
    name = "unpooled_conv_input"
    _check_geometry(name, {"a": a, "activation": activation}, geometry)
    _check_pool(name, activation, pooled_delta, pool)
    expected = (activation.shape[1], a.shape[1] // geometry.groups, *geometry.kernel)
    if weight.shape != expected:
        raise KernelError(f"{name}: 'weight' has shape {list(weight.shape)}, not {list(expected)}, as {geometry} needs")
    given = (a, activation, pooled_delta, weight, geometry, pool, float(slope))
    return load(backend).unpooled_conv_input(*given, workers(threads))


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
    return load(backend).sequence_moments(a, delta, workers(threads))


@kernel(g="B *")
def direct_moments(g: Array, *, backend: str = "auto", threads: int | None = None) -> Accumulators:
    """Accumulators of a gradient that is there per sample already, `[B, ...]`, in one pass over memory."""
    return load(backend).direct_moments(g.reshape(g.shape[0], max(1, prod(g.shape[1:]))), workers(threads))


@kernel(delta="B M *positions")
def position_sum_moments(delta: Array, *, backend: str = "auto", threads: int | None = None) -> Accumulators:
    """Accumulators of Σ_t δ_t for channels-first δ `[B, M, *positions]`: a convolution's bias gradient."""
    count, channels = delta.shape[:2]
    return load(backend).position_sum_moments(delta.reshape(count, channels, prod(delta.shape[2:])), workers(threads))


@kernel(delta="B T m")
def sequence_sum_moments(delta: Array, *, backend: str = "auto", threads: int | None = None) -> Accumulators:
    """Accumulators of Σ_t δ_t for channels-last δ `[B, T, m]`: the bias gradient of a dense layer over T positions."""
    return load(backend).sequence_sum_moments(delta, workers(threads))


@kernel(ids="B T", delta="B T d")
def embedding_moments(
    ids: Array, delta: Array, vocabulary: int, *, backend: str = "auto", threads: int | None = None
) -> Accumulators:
    """Accumulators of an embedding table's gradient `[vocabulary, d]`: δ_t is added to row ids[t].

    Rows that no id touches are zeros and count in n, mean, minimum and maximum.

    Parameters
    ----------
    ids
        Row numbers `[B, T]`, int64 or int32, from −vocabulary to vocabulary − 1 (negative ones count from the end, as
        in ONNX `Gather`).
    delta
        The loss's derivative by the looked-up rows `[B, T, d]`.
    vocabulary
        Number of rows of the table.
    """
    if isinstance(vocabulary, bool) or not isinstance(vocabulary, int | np.integer) or vocabulary < 1:
        raise KernelError(
            f"embedding_moments: vocabulary is {vocabulary!r}: pass the table's number of rows, 1 or more"
        )
    outside = (ids < -vocabulary) | (ids >= vocabulary)
    if outside.any():
        sample, position = np.argwhere(outside)[0]
        raise KernelError(
            f"embedding_moments: sample {sample} has id {ids[sample, position]} at position {position}, outside "
            f"{-vocabulary}..{vocabulary - 1}: pass the vocabulary of the table that was looked up"
        )
    rows = np.where(ids < 0, ids + vocabulary, ids)
    return load(backend).embedding_moments(rows, delta, int(vocabulary), workers(threads))


def layer_statistics(
    accumulators: Sequence[Accumulators], layers: Sequence[int], scale: Array, *, backend: str = "auto"
) -> Accumulators:
    """Statistics of every layer and of all layers together, `[B, 8 · (layers + 1)]`, from its parameters' accumulators.

    Equivalent to `statistics(merge(parts of a layer))`, layer by layer, and of the merged layers at the end, those
    statistics that are linear in the gradient (all but skewness and kurtosis) times the sample's scale.

    Parameters
    ----------
    accumulators
        One array `[B, 8]` per parameter.
    layers
        For each of them the number of its layer: 0, then the same or one more.
    scale
        `[B]`, what the gradients are to be multiplied by.
    """
    parts = [checked_accumulators(part) for part in accumulators]
    counted = bool(layers) and layers[0] == 0 and all(after - before in (0, 1) for before, after in pairwise(layers))
    if not parts or len(parts) != len(layers) or not counted:
        raise KernelError(
            f"layer_statistics: {len(parts)} accumulators of the layers {list(layers)}: pass at least one, and a layer "
            "for each, 0 first and then the same or one more"
        )
    factors = np.ascontiguousarray(scale, dtype=np.float64)
    if factors.ndim != 1 or any(len(part) != len(factors) for part in parts):
        raise KernelError(
            f"layer_statistics: accumulators of {sorted({len(part) for part in parts})} samples and a scale of shape "
            f"{list(factors.shape)}: pass parts of one batch, and one number a sample"
        )
    native = load(backend)
    merged = getattr(native, "layer_statistics", merged_statistics)  # a few numbers a sample: NumPy does for the others
    return np.asarray(merged([np.ascontiguousarray(part) for part in parts], [int(layer) for layer in layers], factors))


def softmax_features(logits: Array, labels: Array, *, backend: str = "auto") -> Array:
    """Entropy, maximum softmax and residual `[B, 3]` of predictions, in float64 and exact however confident they are.

    The residual s = 1 − p_ŷ = sigmoid(logsumexp(z_others) − z_ŷ) is never the difference of two near-equal numbers.
    Entropy is normalised by log q to [0, 1] (Oberdiek et al. 2018, eq. 3); with u the softmax over the other classes,
    H = −(1−s)·log1p(−s) − s·(log s + Σ u log u).

    Parameters
    ----------
    logits
        `[B, q]`, two classes or more.
    labels
        Predicted classes `[B]`, from 0 to q − 1.
    """
    scores, classes = np.ascontiguousarray(logits, dtype=np.float64), np.ascontiguousarray(labels, dtype=np.int64)
    if scores.ndim != 2 or scores.shape[1] < 2 or classes.shape != scores.shape[:1]:
        raise KernelError(
            f"softmax_features: logits of shape {list(scores.shape)} and labels of shape {list(classes.shape)}: pass "
            "[B, q] of two classes or more, and [B]"
        )
    if len(classes) and not 0 <= classes.min() <= classes.max() < scores.shape[1]:
        raise KernelError(f"softmax_features: a label is outside 0..{scores.shape[1] - 1}: pass predicted classes")
    features = getattr(load(backend), "softmax_features", numpy_softmax_features)
    return np.asarray(features(scores, classes))


def _check_geometry(name: str, pair: dict[str, Array], geometry: ConvGeometry) -> None:
    """Refuse a pair of arrays that no convolution of this geometry has as input and output."""
    if not isinstance(geometry, ConvGeometry):
        raise KernelError(f"{name}: geometry is a {type(geometry).__name__}: pass a ConvGeometry(kernel=...)")
    _check_convolution(name, tuple((key, tuple(array.shape)) for key, array in pair.items()), geometry)


def _check_pool(name: str, activation: Array, pooled_delta: Array, pool: PoolGeometry) -> None:
    """Refuse a pooled array that no max pooling of this geometry gives."""
    if not isinstance(pool, PoolGeometry):
        raise KernelError(f"{name}: pool is a {type(pool).__name__}: pass a PoolGeometry(kernel=...)")
    _check_pooling(name, tuple(activation.shape[2:]), tuple(pooled_delta.shape[2:]), pool)


@lru_cache(maxsize=1024)
def _check_convolution(name: str, pair: tuple[tuple[str, tuple[int, ...]], ...], geometry: ConvGeometry) -> None:
    rank = len(geometry.kernel)
    for key, shape in pair:
        if len(shape) != rank + 2:
            raise KernelError(
                f"{name}: {key!r} has shape {list(shape)}: a kernel {geometry.kernel} needs {rank + 2} axes"
            )
        if shape[1] % geometry.groups:
            raise KernelError(f"{name}: {shape[1]} channels of {key!r} do not divide into {geometry.groups} groups")
    (source, a), (target, out) = pair
    expected = geometry.output(a[2:])
    if out[2:] != expected:
        raise KernelError(
            f"{name}: {source!r} of spatial size {list(a[2:])} under {geometry} gives an output of size "
            f"{list(expected)}, but {target!r} has {list(out[2:])}: check strides, dilations and pads"
        )


@lru_cache(maxsize=1024)
def _check_pooling(name: str, spatial: tuple[int, ...], pooled: tuple[int, ...], pool: PoolGeometry) -> None:
    if not len(spatial) == len(pooled) == len(pool.kernel):
        raise KernelError(
            f"{name}: 'activation' has {len(spatial)} spatial axes and 'pooled_delta' {len(pooled)}, but the pooling's "
            f"kernel {pool.kernel} has {len(pool.kernel)}"
        )
    sizes = pool.sizes(spatial)
    if not all(low <= size <= high for size, (low, high) in zip(pooled, sizes, strict=True)):
        raise KernelError(
            f"{name}: 'activation' of spatial size {list(spatial)} under {pool} gives an output of size "
            f"{[low for low, _ in sizes]} (with ceil_mode {[high for _, high in sizes]}), but 'pooled_delta' has "
            f"{list(pooled)}: check strides, dilations and pads"
        )
