"""The gradients of convolutions in float64 NumPy, one product for each kernel position."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._geometry import ConvGeometry, PoolGeometry

Array = NDArray[Any]


def conv_gradient(a: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """Return G[m, c, k] = Σ_t δ[m, t] · a[c, what position t sees at k] of each group, `[B, M, C / groups, *kernel]`."""
    batch, groups = len(a), geometry.groups
    padded = _pad(a.astype(np.float64), geometry)
    channels, filters = a.shape[1] // groups, delta.shape[1] // groups
    out = delta.shape[2:]
    d = delta.astype(np.float64).reshape(batch, groups, filters, int(np.prod(out)))
    gradient = np.empty((batch, groups, filters, channels, geometry.kernel_size))
    for k, window in enumerate(_windows(geometry, out)):
        seen = padded[(slice(None), slice(None), *window)].reshape(batch, groups, channels, d.shape[-1])
        gradient[..., k] = np.einsum("bgmt,bgct->bgmc", d, seen)
    return gradient.reshape(batch, groups * filters, channels, *geometry.kernel)


def unpooled_conv_gradient(
    a: Array, activation: Array, pooled_delta: Array, geometry: ConvGeometry, pool: PoolGeometry
) -> Array:
    """Return the same gradient where δ is known only behind a max pool."""
    return conv_gradient(a, _unpooled(activation, pooled_delta, pool), geometry)


def conv_input(
    a: Array,
    activation: Array,
    pooled_delta: Array,
    weight: Array,
    geometry: ConvGeometry,
    pool: PoolGeometry,
    slope: float,
) -> Array:
    """Return δ in front of the convolution and of the activation that made `a`."""
    batch, groups, out = len(a), geometry.groups, activation.shape[2:]
    delta = _unpooled(activation, pooled_delta, pool).reshape(
        batch, groups, activation.shape[1] // groups, int(np.prod(out))
    )
    filters, channels = delta.shape[2], a.shape[1] // groups
    weights = weight.astype(np.float64).reshape(groups, filters, channels, geometry.kernel_size)
    padded = np.zeros((batch, a.shape[1], *geometry.padded(a.shape[2:])))
    with np.errstate(invalid="ignore"):
        for k, window in enumerate(_windows(geometry, out)):
            passed = np.einsum("bgmt,gmc->bgct", delta, weights[..., k])
            padded[(slice(None), slice(None), *window)] += passed.reshape(batch, a.shape[1], *out)
        return np.asarray(_unpad(padded, a.shape[2:], geometry) * np.where(a > 0, 1.0, slope), dtype=a.dtype)


def _unpooled(activation: Array, pooled_delta: Array, pool: PoolGeometry) -> Array:
    """Return δ in front of the max pool: each window passes its δ to its first maximum, or NaN if it holds NaN."""
    batch, filters, spatial = len(activation), activation.shape[1], activation.shape[2:]
    seen = activation.reshape(batch, filters, int(np.prod(spatial)))
    pooled = pooled_delta.reshape(batch, filters, int(np.prod(pooled_delta.shape[2:])))
    delta = np.zeros(seen.shape)
    plane = np.arange(batch)[:, None], np.arange(filters)[None, :]
    for window, cells in zip(*pool.windows(spatial, pooled_delta.shape[2:]), strict=True):
        values = seen[:, :, cells]
        with np.errstate(invalid="ignore"):
            given = np.where(np.isnan(values).any(2), np.nan, pooled[:, :, window])
            delta[(*plane, cells[values.argmax(2)])] += given
    return delta.reshape(activation.shape)


def _windows(geometry: ConvGeometry, out: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Yield the part of the padded input that each kernel position sees."""
    for place in product(*map(range, geometry.kernel)):
        yield tuple(
            slice(at * dilation, at * dilation + stride * (size - 1) + 1, stride)
            for at, dilation, stride, size in zip(place, geometry.dilations, geometry.strides, out, strict=True)
        )


def _unpad(padded: Array, spatial: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """Undo `_pad` in the spatial axes: cropped cells become zero."""
    whole = np.zeros((*padded.shape[:2], *spatial))
    axes = list(zip(geometry.pads[: len(spatial)], spatial, padded.shape[2:], strict=True))
    kept = tuple(slice(max(-begin, 0), min(size, extent - begin)) for begin, size, extent in axes)
    seen = tuple(slice(part.start + begin, part.stop + begin) for part, (begin, _, _) in zip(kept, axes, strict=True))
    whole[(slice(None), slice(None), *kept)] = padded[(slice(None), slice(None), *seen)]
    return whole


def _pad(a: Array, geometry: ConvGeometry) -> Array:
    """Pad the spatial axes with zeros, or crop them where a pad is negative."""
    rank = len(geometry.kernel)
    begin, end = geometry.pads[:rank], geometry.pads[rank:]
    crop = tuple(slice(max(-b, 0), size - max(-e, 0)) for b, e, size in zip(begin, end, a.shape[2:], strict=True))
    grow = [(max(b, 0), max(e, 0)) for b, e in zip(begin, end, strict=True)]
    return np.pad(a[(slice(None), slice(None), *crop)], [(0, 0), (0, 0), *grow])
