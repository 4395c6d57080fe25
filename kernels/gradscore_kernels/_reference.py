"""The oracle: float64 NumPy that forms every gradient and follows the definitions. Slow, and B×P in memory."""

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._geometry import ConvGeometry, PoolGeometry

Array = NDArray[Any]
Accumulators = NDArray[np.float64]


def outer_moments(a: Array, delta: Array, threads: int) -> Accumulators:
    """See `gradscore_kernels.outer_moments`."""
    with np.errstate(invalid="ignore", over="ignore"):
        gradient = delta.astype(np.float64)[:, :, None] * a.astype(np.float64)[:, None, :]
    return direct_moments(gradient.reshape(len(a), a.shape[1] * delta.shape[1]), threads)


def conv_moments(a: Array, delta: Array, geometry: ConvGeometry, threads: int) -> Accumulators:
    """See `gradscore_kernels.conv_moments`: one product per kernel position."""
    batch, groups = len(a), geometry.groups
    padded = _pad(a.astype(np.float64), geometry)
    channels, filters = a.shape[1] // groups, delta.shape[1] // groups
    out = delta.shape[2:]
    d = delta.astype(np.float64).reshape(batch, groups, filters, int(np.prod(out)))
    gradient = np.empty((batch, groups, filters, channels, geometry.kernel_size))
    for k, place in enumerate(product(*map(range, geometry.kernel))):
        window = tuple(
            slice(at * dilation, at * dilation + stride * (size - 1) + 1, stride)
            for at, dilation, stride, size in zip(place, geometry.dilations, geometry.strides, out, strict=True)
        )
        seen = padded[(slice(None), slice(None), *window)].reshape(batch, groups, channels, d.shape[-1])
        gradient[..., k] = np.einsum("bgmt,bgct->bgmc", d, seen)
    return direct_moments(gradient.reshape(batch, groups * filters * channels * geometry.kernel_size), threads)


def unpooled_conv_moments(
    a: Array, activation: Array, pooled_delta: Array, geometry: ConvGeometry, pool: PoolGeometry, threads: int
) -> Accumulators:
    """See `gradscore_kernels.unpooled_conv_moments`: δ at full resolution, window by window."""
    batch, filters, spatial = len(a), activation.shape[1], activation.shape[2:]
    seen = activation.reshape(batch, filters, int(np.prod(spatial)))
    pooled = pooled_delta.reshape(batch, filters, int(np.prod(pooled_delta.shape[2:])))
    delta = np.zeros(seen.shape)
    plane = np.arange(batch)[:, None], np.arange(filters)[None, :]
    for window, cells in zip(*pool.windows(spatial, pooled_delta.shape[2:]), strict=True):
        values = seen[:, :, cells]
        with np.errstate(invalid="ignore"):
            given = np.where(np.isnan(values).any(2), np.nan, pooled[:, :, window])
            delta[(*plane, cells[values.argmax(2)])] += given
    return conv_moments(a, delta.reshape(activation.shape), geometry, threads)


def sequence_moments(a: Array, delta: Array, threads: int) -> Accumulators:
    """See `gradscore_kernels.sequence_moments`."""
    gradient = np.einsum("btm,btn->bmn", delta.astype(np.float64), a.astype(np.float64))
    return direct_moments(gradient.reshape(len(a), a.shape[2] * delta.shape[2]), threads)


def direct_moments(g: Array, threads: int) -> Accumulators:  # noqa: ARG001 - every back end has the same signature
    """See `gradscore_kernels.direct_moments`: the definitions, in two passes."""
    g = g.astype(np.float64)
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


def position_sum_moments(delta: Array, threads: int) -> Accumulators:
    """See `gradscore_kernels.position_sum_moments`."""
    with np.errstate(invalid="ignore"):
        return direct_moments(delta.sum(2, dtype=np.float64), threads)


def sequence_sum_moments(delta: Array, threads: int) -> Accumulators:
    """See `gradscore_kernels.sequence_sum_moments`."""
    with np.errstate(invalid="ignore"):
        return direct_moments(delta.sum(1, dtype=np.float64), threads)


def embedding_moments(ids: Array, delta: Array, vocabulary: int, threads: int) -> Accumulators:
    """See `gradscore_kernels.embedding_moments`; `ids` lie in 0..vocabulary − 1."""
    gradient = np.zeros((len(ids), vocabulary, delta.shape[2]))
    with np.errstate(invalid="ignore"):
        np.add.at(gradient, (np.arange(len(ids))[:, None], ids), delta.astype(np.float64))
    return direct_moments(gradient.reshape(len(ids), vocabulary * delta.shape[2]), threads)


def _pad(a: Array, geometry: ConvGeometry) -> Array:
    """Surround the spatial axes by zeros, or crop them where a pad is negative."""
    rank = len(geometry.kernel)
    begin, end = geometry.pads[:rank], geometry.pads[rank:]
    crop = tuple(slice(max(-b, 0), size - max(-e, 0)) for b, e, size in zip(begin, end, a.shape[2:], strict=True))
    grow = [(max(b, 0), max(e, 0)) for b, e in zip(begin, end, strict=True)]
    return np.pad(a[(slice(None), slice(None), *crop)], [(0, 0), (0, 0), *grow])
