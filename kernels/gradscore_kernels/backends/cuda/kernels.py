"""The CUDA back end: reduces arrays in device memory, and copies arrays of the host there."""

from functools import lru_cache, partial
from itertools import product as every
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._accumulators import merge, product
from gradscore_kernels._geometry import ConvGeometry, PoolGeometry
from gradscore_kernels.backends.cuda import loops, tiles
from gradscore_kernels.backends.cuda.launches import (
    Launch,
    Tiling,
    exact_where_far,
    reduced,
    together,  # noqa: F401 - the record of the back end calls it here
)
from gradscore_kernels.backends.cuda.moments import SIMULATED, THREADS, cuda

Array = Any  # a NumPy array or one of numba's device arrays
Accumulators = NDArray[np.float64]


def device_array(value: Any) -> Array:
    """Return a view of an object that has the CUDA array interface, without a copy."""
    if SIMULATED:  # the simulator keeps device memory on the host, and does not know the interface
        return np.asarray(_HostView(value.__cuda_array_interface__))
    return cuda.as_cuda_array(value)


def outer_moments(a: Array, delta: Array, threads: int) -> Accumulators:  # noqa: ARG001 - every back end has the same signature
    """See `gradscore_kernels.outer_moments`: the moments of both vectors, then the closed form."""
    vectors = [Launch(loops.direct, (_on_device(vector),), vector.shape[1]) for vector in (delta, a)]
    return reduced(vectors, len(a), lambda found: product(*found))


def conv_moments(a: Array, delta: Array, geometry: ConvGeometry, threads: int) -> Accumulators:  # noqa: ARG001 - every back end has the same signature
    """See `gradscore_kernels.conv_moments`."""
    channels, filters = a.shape[1] // geometry.groups, delta.shape[1] // geometry.groups
    cells, weights = _cells_on_device(geometry, tuple(a.shape[2:])), channels * geometry.kernel_size
    given = (_planes(a), _planes(delta), cells, _places(channels, geometry.kernel_size), channels, filters)
    exact = Launch(loops.conv, given, delta.shape[1] * weights, loops.SHORT_CHUNK)
    if not _fills_tiles(filters, weights):
        return reduced([exact], len(a))
    sizes = (geometry.groups, filters, weights, cells.shape[1])
    tiling = Tiling(tiles.CONV[np.dtype(a.dtype)], given, *sizes)
    return reduced([tiling], len(a), partial(exact_where_far, exact))


def unpooled_conv_moments(
    a: Array, activation: Array, pooled_delta: Array, geometry: ConvGeometry, pool: PoolGeometry, threads: int
) -> Accumulators:
    """See `gradscore_kernels.unpooled_conv_moments`; the δ in front of the max pool takes device memory meanwhile."""
    return conv_moments(a, _unpooled(activation, pooled_delta, pool), geometry, threads)


def unpooled_conv_input(
    a: Array,
    activation: Array,
    pooled_delta: Array,
    weight: Array,
    geometry: ConvGeometry,
    pool: PoolGeometry,
    slope: float,
    threads: int,  # noqa: ARG001 - every back end has the same signature
) -> Array:
    """See `gradscore_kernels.unpooled_conv_input`; the result lies in device memory if `a` does."""
    filters, channels = activation.shape[1] // geometry.groups, a.shape[1] // geometry.groups
    delta, passed = _unpooled(activation, pooled_delta, pool), cuda.device_array(a.shape, a.dtype)
    count = prod(a.shape)
    if count:
        loops.conv_input[_blocks(count), THREADS](
            _planes(a),
            _planes(delta),
            _on_device(weight.reshape(len(weight), channels, geometry.kernel_size)),
            _positions_on_device(geometry, tuple(a.shape[2:])),
            filters,
            a.dtype.type(slope),
            passed.reshape(len(a), a.shape[1], prod(a.shape[2:])),
        )
    return passed.copy_to_host() if isinstance(a, np.ndarray) else passed


def _unpooled(activation: Array, pooled_delta: Array, pool: PoolGeometry) -> Array:
    """Return δ in front of the max pool, in device memory."""
    tables = _windows_on_device(pool, tuple(activation.shape[2:]), tuple(pooled_delta.shape[2:]))
    delta = cuda.device_array(activation.shape, activation.dtype)
    count = prod(activation.shape)
    if count:
        loops.unpool[_blocks(count), THREADS](
            _all_planes(activation), _all_planes(pooled_delta), *tables, _all_planes(delta)
        )
    return delta


def sequence_moments(a: Array, delta: Array, threads: int) -> Accumulators:
    """See `gradscore_kernels.sequence_moments`; one position has a closed form."""
    inputs, outputs = a.shape[2], delta.shape[2]
    if a.shape[1] == 1:
        return outer_moments(a.reshape(len(a), inputs), delta.reshape(len(a), outputs), threads)
    given = (_on_device(a), _on_device(delta))
    exact = Launch(loops.sequence, given, inputs * outputs)
    if not _fills_tiles(outputs, inputs):
        return reduced([exact], len(a))
    tiling = Tiling(tiles.SEQUENCE[np.dtype(a.dtype)], given, 1, outputs, inputs, a.shape[1])
    return reduced([tiling], len(a), partial(exact_where_far, exact))


def direct_moments(g: Array, threads: int) -> Accumulators:  # noqa: ARG001 - every back end has the same signature
    """See `gradscore_kernels.direct_moments`."""
    return reduced([Launch(loops.direct, (_on_device(g),), g.shape[1])], len(g))


def position_sum_moments(delta: Array, threads: int) -> Accumulators:  # noqa: ARG001 - every back end has the same signature
    """See `gradscore_kernels.position_sum_moments`."""
    return reduced([Launch(loops.position_sum, (_on_device(delta),), delta.shape[1], loops.SHORT_CHUNK)], len(delta))


def sequence_sum_moments(delta: Array, threads: int) -> Accumulators:  # noqa: ARG001 - every back end has the same signature
    """See `gradscore_kernels.sequence_sum_moments`."""
    return reduced([Launch(loops.sequence_sum, (_on_device(delta),), delta.shape[2])], len(delta))


def embedding_moments(ids: NDArray[np.int64], delta: Array, vocabulary: int, threads: int) -> Accumulators:  # noqa: ARG001 - every back end has the same signature
    """See `gradscore_kernels.embedding_moments`; `ids` are 0..vocabulary − 1, on the host."""
    (batch, positions), width = ids.shape, delta.shape[2]
    order = np.argsort(ids, axis=1, kind="stable")
    known = np.take_along_axis(ids, order, 1)
    new = np.concatenate([np.ones((batch, 1), dtype=bool), known[:, 1:] != known[:, :-1]], 1)
    first = np.full((batch, positions + 1), positions)
    touched = new.sum(1)
    for sample, begins in enumerate(new):
        first[sample, : touched[sample]] = np.flatnonzero(begins)
    given = (_on_device(delta), _on_device(order), _on_device(first))
    zeros = np.zeros((batch, 8))
    zeros[:, 0] = (vocabulary - touched) * width
    zeros[touched == vocabulary, 6:] = np.inf, -np.inf
    launch = Launch(loops.embedding, given, positions * width, counts=touched * width)
    return reduced([launch], batch, lambda found: merge([*found, zeros]))


def _fills_tiles(height: int, width: int) -> bool:
    """Tell whether tiles are faster than a team of threads per number, although the last tiles are not full."""
    tiled = -(-height // tiles.ROWS) * -(-width // tiles.COLUMNS) * tiles.ROWS * tiles.COLUMNS
    return height * width * _FASTER >= tiled


_FASTER = 8  # speed of a full tile over that of teams


def _blocks(count: int) -> int:
    """Return how many blocks to launch for this number of elements."""
    return min(-(-count // THREADS), 1 if SIMULATED else 1 << 16)


@lru_cache(maxsize=1024)
def _places(channels: int, kernel_size: int) -> Array:
    """Return the channel and the kernel position of every weight of a filter, `[weights, 2]`."""
    return cuda.to_device(np.stack(np.divmod(np.arange(channels * kernel_size, dtype=np.int32), kernel_size), 1))


@lru_cache(maxsize=64)
def _cells_on_device(geometry: ConvGeometry, spatial: tuple[int, ...]) -> Array:
    return cuda.to_device(_cells(geometry, spatial))


@lru_cache(maxsize=64)
def _positions_on_device(geometry: ConvGeometry, spatial: tuple[int, ...]) -> Array:
    return cuda.to_device(_positions(geometry, spatial))


@lru_cache(maxsize=64)
def _windows_on_device(pool: PoolGeometry, spatial: tuple[int, ...], pooled: tuple[int, ...]) -> tuple[Array, ...]:
    """Return the windows, their cells, and the windows that each cell lies in, `[cells, …]` (−1: no more)."""
    windows, cells = pool.windows(spatial, pooled)
    window, cell = np.divmod(np.unique(np.arange(len(cells))[:, None] * prod(spatial) + cells), prod(spatial))
    order = np.argsort(cell, kind="stable")
    first = np.searchsorted(cell[order], cell[order])
    place = np.arange(len(order)) - first
    covering = np.full((prod(spatial), place.max(initial=0) + 1), -1)
    covering[cell[order], place] = window[order]
    return tuple(cuda.to_device(table) for table in (windows, cells, covering))


def _cells(geometry: ConvGeometry, spatial: tuple[int, ...]) -> NDArray[np.int32]:
    """Return the input cell that each kernel position meets at each output position, `[K, T]` (−1: padding)."""
    table = []
    for place in every(*map(range, geometry.kernel)):
        cell, inside = np.zeros(1, dtype=np.int32), np.ones(1, dtype=bool)
        axes = zip(spatial, geometry.output(spatial), strict=True)
        for axis, (size, count) in enumerate(axes):
            at = (
                np.arange(count) * geometry.strides[axis] + place[axis] * geometry.dilations[axis] - geometry.pads[axis]
            )
            cell = (cell[:, None] * size + at).ravel()
            inside = (inside[:, None] & (at >= 0) & (at < size)).ravel()
        table.append(np.where(inside, cell, -1))
    return np.array(table, dtype=np.int32)


def _positions(geometry: ConvGeometry, spatial: tuple[int, ...]) -> NDArray[np.int32]:
    """Return the output position at which each kernel position meets each input cell, `[K, cells]` (−1: none)."""
    cells = _cells(geometry, spatial)
    table = np.full((len(cells), prod(spatial)), -1, dtype=np.int32)
    weight, position = np.nonzero(cells >= 0)
    table[weight, cells[weight, position]] = position
    return table


def _planes(array: Array) -> Array:
    """View `[B, C, *spatial]` as `[B, C, cells]` on the device."""
    return _on_device(array.reshape(array.shape[0], array.shape[1], prod(array.shape[2:])))


def _all_planes(array: Array) -> Array:
    """View `[B, C, *spatial]` as `[B·C, cells]` on the device."""
    return _on_device(array.reshape(prod(array.shape[:2]), prod(array.shape[2:])))


def _on_device(array: Array) -> Array:
    """Copy an array of the host to the device; leave an array of the device where it is."""
    return cuda.to_device(array) if isinstance(array, np.ndarray) else array


class _HostView:
    """An array in the form that the simulator can read."""

    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface
