"""The numba back end, for machines without a C++ compiler at install time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._accumulators import product, rounding_shows
from gradscore_kernels._geometry import ConvGeometry, PoolGeometry
from gradscore_kernels.backends import numba_loops as loops

Array = NDArray[Any]
Accumulators = NDArray[np.float64]

Work = Callable[[Accumulators, int, int], None]
Kernel = Callable[..., Accumulators]  # takes only arrays

TILE = 4
LANES = loops.LANES  # lags are padded to whole vectors
FEW, MANY = 96, 64  # vectors run over filters or weights for at most FEW positions and at least MANY of them (measured)
MANY_OUTPUTS = 32  # as MANY, for the outputs of a sequence
STRETCH = 1 << 20  # bytes of δ to unpool at a time, and of arrays to convert to float64
FEW_NUMBERS = 32  # in gradients with fewer numbers the rounding of float32 shows (as in kernels.cpp)
SMALL = 1 << 16  # a batch with fewer numbers ends before a second thread would start


def outer_moments(a: Array, delta: Array, threads: int) -> Accumulators:
    """See `gradscore_kernels.outer_moments`: the moments of both vectors, then the closed form."""
    return product(direct_moments(delta, threads), direct_moments(a, threads))


def conv_moments(a: Array, delta: Array, geometry: ConvGeometry, threads: int) -> Accumulators:
    """See `gradscore_kernels.conv_moments`."""

    def run(a: Array, delta: Array) -> Accumulators:
        return _share(_conv_work(a, delta, geometry), len(a), a.size * geometry.kernel_size, threads)

    return _exact_where_needed(run, _conv_weights(a, delta, geometry), a, delta)


def unpooled_conv_moments(
    a: Array, activation: Array, pooled_delta: Array, geometry: ConvGeometry, pool: PoolGeometry, threads: int
) -> Accumulators:
    """See `gradscore_kernels.unpooled_conv_moments`."""

    def run(a: Array, activation: Array, pooled_delta: Array) -> Accumulators:
        return _unpooled_conv(a, activation, pooled_delta, geometry, pool, threads)

    return _exact_where_needed(run, _conv_weights(a, activation, geometry), a, activation, pooled_delta)


def _unpooled_conv(
    a: Array, activation: Array, pooled_delta: Array, geometry: ConvGeometry, pool: PoolGeometry, threads: int
) -> Accumulators:
    """Reduce the gradients without a full-size δ where that is faster, else with one for a few samples at a time."""
    pooling = _pooling(pool, activation.shape[2:], pooled_delta.shape[2:])
    lanes = _lanes(geometry, a.shape[1] // geometry.groups, a.shape[2:])
    pays = _scatter_pays(lanes, len(pooling[0]), activation.shape[1] // geometry.groups)
    bits, order = _bits(activation)
    planes, seen, given = (_by_group(values, geometry.groups) for values in (a, bits, pooled_delta))
    step = max(1, STRETCH // activation[0].nbytes) if len(a) else 1

    def spread(out: Accumulators, start: int, stop: int) -> None:
        delta = np.empty_like(activation[: min(step, stop - start)])
        for b in range(start, stop, step):
            some = slice(b, min(b + step, stop))
            known = delta[: some.stop - b]
            loops.unpool(_flat(bits[some]), order, _flat(pooled_delta[some]), pooling, _flat(known))
            _conv_work(a[some], known, geometry)(out[some], 0, len(known))

    def work(out: Accumulators, start: int, stop: int) -> None:
        if not pays:
            return spread(out, start, stop)
        loops.unpooled_conv(planes, seen, order, given, pooling, lanes, out, start, stop)
        # Inf or NaN times the zeros of δ is NaN, so these samples need the full-size δ.
        finite = np.isfinite(a[start:stop]).all(axis=tuple(range(1, a.ndim)))
        for b in (start + np.flatnonzero(~finite)).tolist():
            out[b] = 0
            spread(out, b, b + 1)
        return None

    return _share(work, len(a), a.size * geometry.kernel_size, threads)


def unpooled_conv_input(
    a: Array,
    activation: Array,
    pooled_delta: Array,
    weight: Array,
    geometry: ConvGeometry,
    pool: PoolGeometry,
    slope: float,
    threads: int,
) -> Array:
    """See `gradscore_kernels.unpooled_conv_input`; the channels of a cell stand side by side, one group at a time."""
    groups, channels = geometry.groups, a.shape[1] // geometry.groups
    pooling = _pooling(pool, activation.shape[2:], pooled_delta.shape[2:])
    tables = _plane_tables(geometry, a.shape[2:])
    by_place = weight.reshape(groups, len(weight) // groups, channels, geometry.kernel_size).transpose(0, 1, 3, 2)
    bits, order = _bits(activation)
    planes, seen, given = (_by_group(values, groups) for values in (a, bits, pooled_delta))
    passed = np.empty_like(planes)
    work = partial(
        loops.unpooled_input, planes, seen, order, given, pooling, tables, np.ascontiguousarray(by_place),
        a.dtype.type(slope), passed,
    )  # fmt: skip
    _share(work, len(a), pooled_delta.size * geometry.kernel_size, threads)
    return passed.reshape(a.shape)


def _conv_work(a: Array, delta: Array, geometry: ConvGeometry) -> Work:
    """Choose the loop that is fastest for these sizes."""
    groups, filters = geometry.groups, delta.shape[1] // geometry.groups
    tables = ConvTables.of(geometry, a.shape[1] // groups, a.shape[2:])
    planes, maps = _by_group(a, groups), _by_group(delta, groups)
    positions, weights = maps.shape[3], tables.layout[-1]
    given = (planes, maps, tables.layout)
    if positions <= FEW and filters >= MANY:
        return partial(loops.conv_over_filters, *given, _whole_tiles(tables.layout[2]), tables.rows)
    if positions <= FEW and weights >= MANY:
        return partial(loops.conv_over_weights, *given, _whole_tiles(np.arange(positions)), tables.rows)
    if filters < loops.FEW and planes.shape[2] == 1 and _in_place(geometry, a.shape[2:]):
        return partial(loops.conv_of_planes, planes, maps, *_masks(geometry, a.shape[2:], a.dtype))
    by_dots = loops.conv_of_few if filters < loops.FEW else loops.conv_by_dots
    return partial(by_dots, *given, tables.lags, tables.rows)


def sequence_moments(a: Array, delta: Array, threads: int) -> Accumulators:
    """See `gradscore_kernels.sequence_moments`; one position has a closed form."""
    positions, inputs, outputs = a.shape[1], a.shape[2], delta.shape[2]
    if positions == 1:
        return outer_moments(a[:, 0], delta[:, 0], threads)

    def run(a: Array, delta: Array) -> Accumulators:
        return _share(_sequence_work(a, delta), len(a), a.size * outputs, threads)

    return _exact_where_needed(run, inputs * outputs, a, delta)


def _sequence_work(a: Array, delta: Array) -> Work:
    """Choose the loop that is faster for these sizes."""
    positions, inputs, outputs = a.shape[1], a.shape[2], delta.shape[2]
    if positions <= FEW and outputs >= MANY_OUTPUTS:
        whole = _whole_tiles(np.arange(positions) * inputs)
        return partial(loops.sequence_over_outputs, a, delta, whole, _whole_tiles(np.arange(inputs)))
    lags = _round_up(positions, LANES)
    return partial(loops.sequence_by_dots, a, delta, lags, _whole_tiles(np.arange(inputs) * lags))


def _conv_weights(a: Array, delta: Array, geometry: ConvGeometry) -> int:
    return int(delta.shape[1] * (a.shape[1] // geometry.groups) * geometry.kernel_size)


def _exact_where_needed(run: Kernel, numbers: int, *arrays: Array) -> Accumulators:
    """Run a kernel, and run it in float64 for the samples that need it; `numbers` is the size of a gradient."""
    if arrays[0].dtype == np.float64:
        return run(*arrays)
    batch = len(arrays[0])
    if numbers < FEW_NUMBERS:
        found, samples = np.empty((batch, 8)), np.arange(batch)
    else:
        found = run(*arrays)
        samples = np.flatnonzero(rounding_shows(found))
    step = max(1, STRETCH // sum(array[0].nbytes for array in arrays)) if len(samples) else 1
    for start in range(0, len(samples), step):
        some = samples[start : start + step]
        found[some] = run(*(array[some].astype(np.float64) for array in arrays))
    return found


def direct_moments(g: Array, threads: int) -> Accumulators:
    """See `gradscore_kernels.direct_moments`."""
    return _share(partial(loops.direct, g), len(g), g.size, threads)


def position_sum_moments(delta: Array, threads: int) -> Accumulators:
    """See `gradscore_kernels.position_sum_moments`."""
    return _share(partial(loops.position_sum, delta), len(delta), delta.size, threads)


def sequence_sum_moments(delta: Array, threads: int) -> Accumulators:
    """See `gradscore_kernels.sequence_sum_moments`."""
    return _share(partial(loops.sequence_sum, delta), len(delta), delta.size, threads)


def embedding_moments(ids: Array, delta: Array, vocabulary: int, threads: int) -> Accumulators:
    """See `gradscore_kernels.embedding_moments`; `ids` are 0..vocabulary − 1."""
    order = np.argsort(ids, axis=1, kind="stable")
    return _share(partial(loops.embedding, ids, order, delta, vocabulary), len(ids), delta.size, threads)


@dataclass(frozen=True)
class ConvTables:
    """A convolution with any number of dimensions as dot products at lags into a flat array.

    The padded input is laid out phase by phase: for strides s, all points with the same remainder by s lie together. So
    at the output position with lag l, weight r meets the input at `rows[r] + l`, for every stride.

    Attributes
    ----------
    layout
        As `numba_loops.Tables`: the elements of an input plane that some weight meets, their places in the channel's
        layout, the lag of each output position, the size of a channel's layout, and the number of weights.
    lags
        Number of lags, rounded up to whole vectors.
    rows
        The offset of each weight, padded to whole tiles.
    """

    layout: loops.Tables
    lags: int
    rows: Array

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, geometry: ConvGeometry, channels: int, spatial: tuple[int, ...]) -> "ConvTables":
        """Build the tables for the channels of one group."""
        padded, out = geometry.padded(spatial), geometry.output(spatial)
        cells = [-(-size // stride) for size, stride in zip(padded, geometry.strides, strict=True)]
        targets, positions, rows = [], [], []
        for axis, (k, stride, dilation) in enumerate(
            zip(geometry.kernel, geometry.strides, geometry.dilations, strict=True)
        ):
            pitch, phase = prod(cells[axis + 1 :]), prod(cells) * prod(geometry.strides[axis + 1 :])
            point = np.arange(padded[axis])
            offset = point // stride * pitch + point % stride * phase
            taps = np.arange(k) * dilation
            met = np.zeros(padded[axis], dtype=bool)
            met[taps[:, None] + np.arange(out[axis]) * stride] = True
            begin = geometry.pads[axis]
            place = np.full(spatial[axis], -1)
            inside = slice(max(-begin, 0), min(spatial[axis], padded[axis] - begin))
            seen = slice(inside.start + begin, inside.stop + begin)
            place[inside] = np.where(met[seen], offset[seen], -1)
            targets.append(place)
            rows.append(offset[taps])
            positions.append(np.arange(out[axis]) * pitch)
        size = prod(cells) * prod(geometry.strides)
        weights = _outer_sum([np.arange(channels) * size, *rows])
        position = _outer_sum(positions)
        hidden = _outer_sum([(place < 0).astype(int) for place in targets]) > 0
        source, target = np.flatnonzero(~hidden).astype(np.uint64), _outer_sum(targets)[~hidden].astype(np.uint64)
        lags = _round_up(int(position[-1]) + 1, LANES)
        return cls((source, target, position.astype(np.uint64), size, len(weights)), lags, _whole_tiles(weights))


def _in_place(geometry: ConvGeometry, spatial: tuple[int, ...]) -> bool:
    """Tell whether the output has the input's size, and each output can lie in its input's place.

    Then some weight meets each input at the output in the same place.
    """
    axes = zip(geometry.kernel, geometry.dilations, geometry.pads, strict=False)
    centred = all(pad >= 0 and pad % dilation == 0 and pad // dilation < kernel for kernel, dilation, pad in axes)
    return centred and max(geometry.strides) == 1 and geometry.output(spatial) == spatial


@lru_cache(maxsize=64)
def _masks(geometry: ConvGeometry, spatial: tuple[int, ...], kind: np.dtype[Any]) -> tuple[Array, Array, int, int]:
    """Return the masks, offsets, margin and size for `conv_of_planes`; the kernel rows of a column share a mask."""
    taps = [
        np.arange(kernel) * dilation - pad
        for kernel, dilation, pad in zip(geometry.kernel, geometry.dilations, geometry.pads, strict=False)
    ]
    pitches = [prod(spatial[axis + 1 :]) for axis in range(len(spatial))]
    masks = np.ones((1, 1), dtype=bool)
    for extent, tap in zip(spatial[1:], taps[1:], strict=True):
        met = tap[:, None] + np.arange(extent)
        inside = (met >= 0) & (met < extent)
        masks = (masks[:, None, :, None] & inside[:, None]).reshape(len(masks) * len(tap), -1)
    steps = [tap * pitch for tap, pitch in zip(taps, pitches, strict=True)]
    rows = _outer_sum(steps[1:])[:, None] + steps[0]
    cells, margin = prod(spatial), -min(int(rows.min()), 0)
    lags = _round_up(cells, LANES)
    masks = np.pad(np.tile(masks, (1, spatial[0])), ((0, 0), (0, lags - cells)))
    return masks.astype(kind), rows + margin, margin, margin + lags + max(int(rows.max()), 0)


@lru_cache(maxsize=64)
def _plane_tables(geometry: ConvGeometry, spatial: tuple[int, ...]) -> tuple[Array, Array, Array, int]:
    """Return where positions, kernel positions and input cells (−1: cropped) lie in the padded plane, and its size."""
    padded, out = geometry.padded(spatial), geometry.output(spatial)
    positions, places, cells, hidden = [], [], [], []
    for axis, size in enumerate(spatial):
        pitch, at = prod(padded[axis + 1 :]), np.arange(size) + geometry.pads[axis]
        positions.append(np.arange(out[axis]) * geometry.strides[axis] * pitch)
        places.append(np.arange(geometry.kernel[axis]) * geometry.dilations[axis] * pitch)
        cells.append(at * pitch)
        hidden.append(((at < 0) | (at >= padded[axis])).astype(int))
    seen = np.where(_outer_sum(hidden) > 0, -1, _outer_sum(cells))
    return _outer_sum(positions), _outer_sum(places), seen, prod(padded)


@lru_cache(maxsize=64)
def _pooling(pool: PoolGeometry, full: tuple[int, ...], pooled: tuple[int, ...]) -> loops.Pooling:
    """Return the windows of a plane as `numba_loops.Pooling` describes them."""
    windows, cells = pool.windows(full, pooled)
    slots, columns = np.ascontiguousarray(cells.T, np.uint32), full[-1]
    corners = _outer_sum([2 * columns * np.arange(full[0] // 2), 2 * np.arange(columns // 2)])
    squares = [corners, corners + 1, corners + columns, corners + columns + 1]
    return windows, slots, columns if len(full) == 2 and columns >= LANES and np.array_equal(slots, squares) else 0


@lru_cache(maxsize=64)
def _lanes(geometry: ConvGeometry, channels: int, spatial: tuple[int, ...]) -> loops.Lanes:
    """Return the layout in which runs of kernel positions lie side by side, as `numba_loops.Lanes` describes it.

    If a run does not fill a vector, shifted copies of the channels put all kernel positions side by side.
    """
    positions, places, cells, size = _plane_tables(geometry, spatial)
    run = geometry.kernel[-1] if geometry.dilations[-1] == 1 else 1
    firsts, alone = places[::run], np.zeros(1, np.int64)
    shifts, begins = (firsts, alone) if run * channels < LANES else (alone, firsts)
    pitch = channels * len(shifts)
    starts, runs = (positions * pitch).astype(np.uint64), (begins * pitch).astype(np.uint64)
    return cells, size, shifts, starts, runs, run * pitch


def _scatter_pays(lanes: loops.Lanes, windows: int, filters: int) -> bool:
    """Tell whether a max pool leaves so few products that vectors over one row of weights are faster."""
    _, _, shifts, starts, runs, width = lanes
    products, all_products = windows * len(runs) * _round_up(width, LANES), len(starts) * len(runs) * width
    return (len(shifts) == 1 or filters >= TILE) and 2 * products <= all_products and len(starts) <= loops.RUN


def _by_group(planes: Array, groups: int) -> Array:
    """View `[B, M, *spatial]` as `[B, groups, M / groups, cells]`."""
    return planes.reshape(len(planes), groups, planes.shape[1] // groups, prod(planes.shape[2:]))


def _bits(values: Array) -> tuple[Array, loops.Order]:
    """View floating-point numbers as integers, and return what `maxima` needs to order them."""
    kind = np.dtype(f"i{values.itemsize}").type
    infinity = values.dtype.type(np.inf).view(kind)
    return values.view(kind), (kind(8 * values.itemsize - 1), kind(np.iinfo(kind).max), infinity)


def _flat(planes: Array) -> Array:
    """View `[B, M, *spatial]` as `[B·M, cells]`."""
    return planes.reshape(planes.shape[0] * planes.shape[1], prod(planes.shape[2:]))


def _outer_sum(parts: Sequence[Array]) -> Array:
    """Return all sums of one number from each part; the last part varies fastest."""
    total = np.zeros(1, dtype=np.int64)
    for part in parts:
        total = (total[:, None] + part).ravel()
    return total


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _whole_tiles(rows: Array) -> Array:
    """Repeat the last row up to whole tiles."""
    return np.pad(rows, (0, -len(rows) % TILE), mode="edge")


def _share(work: Work, batch: int, cost: int, threads: int) -> Accumulators:
    """Let `work(out, start, stop)` fill the accumulators of all samples, in one part per thread."""
    out = np.zeros((batch, 8))
    parts = min(threads, batch) if cost >= SMALL else 1
    bounds = [batch * part // max(parts, 1) for part in range(max(parts, 1) + 1)]
    spans = list(pairwise(bounds))
    if len(spans) == 1:
        _run(work, out, *spans[0])
    else:
        pool = _pool(parts)
        for done in [pool.submit(_run, work, out, *span) for span in spans]:
            done.result()
    return out


def _run(work: Work, out: Accumulators, start: int, stop: int) -> None:
    with np.errstate(all="ignore"):  # without the JIT these are NumPy scalars, which warn of NaN
        work(out, start, stop)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="gradscore_kernels")
