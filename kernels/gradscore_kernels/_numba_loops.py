"""Compiled loops of the numba back end. Every function reduces samples start..stop of a batch into `out`.

Only sums may be reordered (`reassoc`), which lets LLVM keep them in vectors; nothing assumes that NaN is absent. No
`parallel=True`: samples are shared among threads by the caller, so a row's bits never depend on it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._numba_tiles import RUN, STRIP, axpy_tiles, compiled, dot_rows, dot_tiles

Array = NDArray[Any]

BLOCK = 4096  # numbers summed about one shift
SIGNS = np.int64(63)
FLIP = np.int64(0x7FFF_FFFF_FFFF_FFFF)  # all bits but the sign

# A sample's numbers on their way to its accumulator: float64 [BLOCK] that fills up, and a float64 [8] to merge from.
Buffers = tuple[Array, Array]

# A convolution: source and target elements of a channel's layout, each position's place in it, the layout's size, and
# the number of weights. Indices are unsigned, which spares the test for negative ones.
Tables = tuple[Array, Array, Array, int, int]


@compiled
def buffers() -> Buffers:
    """Allocate what one thread needs beside its tiles."""
    return np.empty(BLOCK), np.empty(8)


@compiled
def merge(row: Array, other: Array) -> None:
    """Merge accumulator `other` into `row` (Pébay 2008, eqs. 2.1 and 3.1)."""
    if row[0] == 0:
        row[:] = other
        return
    n, m = row[0], other[0]
    total = n + m
    d = other[2] - row[2]
    share = d / total
    pair = n * m * d * share
    row[5] += (
        other[5]
        + pair * share * share * (n * n - n * m + m * m)
        + 6 * share * share * (n * n * other[3] + m * m * row[3])
        + 4 * share * (n * other[4] - m * row[4])
    )
    row[4] += other[4] + pair * share * (n - m) + 3 * share * (n * other[3] - m * row[3])
    row[3] += other[3] + pair
    row[2] += m * share
    row[1] += other[1]
    row[6] = min(row[6], other[6])
    row[7] = max(row[7], other[7])
    row[0] = total


@compiled
def reduce(held: Buffers, count: int, row: Array) -> None:
    """Merge the accumulator of the first `count` numbers into `row`; powers are summed about the first of them.

    Extremes are found among the numbers' bits, which order like the numbers once negative ones are flipped: LLVM makes
    vectors of integer comparisons, but not of floating ones, as those treat NaN by order.
    """
    values, block = held
    bits = values.view(np.int64)
    shift = values[0]
    low = high = bits[0] ^ ((bits[0] >> SIGNS) & FLIP)
    size = s1 = s2 = s3 = s4 = 0.0
    for i in range(count):
        d = values[i] - shift
        square = d * d
        size += abs(values[i])
        s1 += d
        s2 += square
        s3 += square * d
        s4 += square * square
        key = bits[i] ^ ((bits[i] >> SIGNS) & FLIP)
        low, high = min(low, key), max(high, key)
    mean = s1 / count
    block[0] = count
    block[1] = size
    block[2] = shift + mean
    block[3] = max(s2 - count * mean * mean, 0.0)
    block[4] = s3 - mean * (3 * s2 - 2 * count * mean * mean)
    block[5] = s4 - mean * (4 * s3 - mean * (6 * s2 - 3 * count * mean * mean))
    extremes = block.view(np.int64)
    extremes[6] = low ^ ((low >> SIGNS) & FLIP)
    extremes[7] = high ^ ((high >> SIGNS) & FLIP)
    merge(row, block)


@compiled
def append(values: Array, held: Buffers, fill: int, row: Array) -> int:
    """Put numbers behind the `fill` that are held, reducing every full block; return how many are held then."""
    block, done = held[0], 0
    while done < len(values):
        some = min(len(values) - done, BLOCK - fill)
        source, target = values[done : done + some], block[fill : fill + some]  # slices keep the indices plain
        for i in range(some):
            target[i] = source[i]
        done += some
        fill += some
        if fill == BLOCK:
            reduce(held, BLOCK, row)
            fill = 0
    return fill


@compiled
def finish(held: Buffers, fill: int, row: Array) -> None:
    """Reduce what is held; make the row NaN but for n if its gradient held NaN or Inf."""
    if fill > 0:
        reduce(held, fill, row)
    if not np.isfinite(row[1]):
        row[1:] = np.nan


@compiled
def direct(g: Array, out: Array, start: int, stop: int) -> None:
    """Reduce g `[B, n]`."""
    held = buffers()
    for b in range(start, stop):
        finish(held, append(g[b], held, 0, out[b]), out[b])


@compiled
def position_sum(delta: Array, out: Array, start: int, stop: int) -> None:
    """Reduce Σ_t of delta `[B, M, T]`."""
    held, sums = buffers(), np.empty(delta.shape[1])
    for b in range(start, stop):
        for channel in range(delta.shape[1]):
            total = 0.0
            for t in range(delta.shape[2]):
                total += np.float64(delta[b, channel, t])
            sums[channel] = total
        finish(held, append(sums, held, 0, out[b]), out[b])


@compiled
def sequence_sum(delta: Array, out: Array, start: int, stop: int) -> None:
    """Reduce Σ_t of delta `[B, T, m]`."""
    held, sums = buffers(), np.empty(delta.shape[2])
    for b in range(start, stop):
        sums[:] = 0
        for t in range(delta.shape[1]):
            for i in range(delta.shape[2]):
                sums[i] += np.float64(delta[b, t, i])
        finish(held, append(sums, held, 0, out[b]), out[b])


@compiled
def embedding(ids: Array, order: Array, delta: Array, vocabulary: int, out: Array, start: int, stop: int) -> None:
    """Reduce the table's gradient row by row: `order` `[B, T]` sorts each sample's positions by id."""
    positions, width = delta.shape[1:]
    held, sums, zeros = buffers(), np.empty(width), np.zeros(8)
    for b in range(start, stop):
        touched = i = fill = 0
        while i < positions:
            row = ids[b, order[b, i]]
            sums[:] = 0
            while i < positions and ids[b, order[b, i]] == row:
                for j in range(width):
                    sums[j] += np.float64(delta[b, order[b, i], j])
                i += 1
            fill = append(sums, held, fill, out[b])
            touched += 1
        finish(held, fill, out[b])
        if touched < vocabulary:
            zeros[0] = np.float64(vocabulary - touched) * width
            merge(out[b], zeros)


@compiled
def reduce_dots(
    delta: Array,
    flat: Array,
    rows: Array,
    count: int,
    filters: int,
    gradient: Array,
    held: Buffers,
    fill: int,
    row: Array,
) -> int:
    """Append G[r, m] = Σ_l delta[m, l] flat[rows[r] + l] for r < count, m < filters; return how many are held then."""
    for r in range(0, len(rows), STRIP):
        gradient[:] = 0
        for start in range(0, delta.shape[1], RUN):
            stop = min(start + RUN, delta.shape[1])
            if filters < 3:
                dot_rows(delta, flat, rows[r : r + STRIP], start, stop, gradient)
            else:
                dot_tiles(delta, flat, rows[r : r + STRIP], start, stop, gradient)
        some = min(STRIP, count - r)
        if filters == gradient.shape[1]:
            fill = append(gradient[:some].ravel(), held, fill, row)
        else:
            for i in range(some):
                fill = append(gradient[i, :filters], held, fill, row)
    return fill


@compiled
def reduce_axpys(
    delta: Array,
    flat: Array,
    rows: Array,
    count: int,
    position: Array,
    gradient: Array,
    held: Buffers,
    fill: int,
    row: Array,
) -> int:
    """Append G[r, m] = Σ_t delta[t, m] flat[rows[r] + position[t]] for r < count; return how many are held then."""
    for r in range(0, len(rows), STRIP):
        gradient[:] = 0
        axpy_tiles(delta, flat, rows[r : r + STRIP], position, gradient)
        fill = append(gradient[: min(STRIP, count - r)].ravel(), held, fill, row)
    return fill


@compiled
def lay_out(a: Array, source: Array, target: Array, size: int, flat: Array) -> None:
    """Copy one group's channels `[C, in]` to where the tables want them."""
    for c in range(len(a)):
        plane, to = a[c], flat[c * size : (c + 1) * size]
        for i in range(len(target)):
            to[target[i]] = plane[source[i]]


@compiled
def conv_by_dots(
    a: Array, delta: Array, tables: Tables, lags: int, rows: Array, out: Array, start: int, stop: int
) -> None:
    """Reduce weight gradients of a `[B, groups, C, in]`, delta `[B, groups, M, T]`: vectors run over positions."""
    source, target, position, size, count = tables
    groups, filters = delta.shape[1:3]
    flat = np.zeros(a.shape[2] * size + lags, a.dtype)
    whole = filters if filters < 3 else (filters + 3) // 4 * 4
    spread, gradient = np.zeros((whole, lags), a.dtype), np.empty((STRIP, whole))
    held = buffers()
    for b in range(start, stop):
        fill = 0
        for group in range(groups):
            lay_out(a[b, group], source, target, size, flat)
            for m in range(filters):
                of, to = delta[b, group, m], spread[m]
                for t in range(len(position)):
                    to[position[t]] = of[t]
            fill = reduce_dots(spread, flat, rows, count, filters, gradient, held, fill, out[b])
        finish(held, fill, out[b])


@compiled
def conv_over_filters(
    a: Array, delta: Array, tables: Tables, whole: Array, rows: Array, out: Array, start: int, stop: int
) -> None:
    """Reduce the same gradients where positions are few and filters many: vectors run over filters.

    `whole` are the positions, filled up to whole tiles.
    """
    source, target, _, size, count = tables
    groups, filters, positions = delta.shape[1:]
    flat = np.zeros(a.shape[2] * size, a.dtype)
    columns, gradient = np.zeros((len(whole), filters), a.dtype), np.empty((STRIP, filters), a.dtype)
    held = buffers()
    for b in range(start, stop):
        fill = 0
        for group in range(groups):
            lay_out(a[b, group], source, target, size, flat)
            for m in range(filters):
                of = delta[b, group, m]
                for t in range(positions):
                    columns[t, m] = of[t]
            fill = reduce_axpys(columns, flat, rows, count, whole, gradient, held, fill, out[b])
        finish(held, fill, out[b])


@compiled
def conv_over_weights(
    a: Array, delta: Array, tables: Tables, whole: Array, rows: Array, out: Array, start: int, stop: int
) -> None:
    """Reduce the same gradients where positions and filters are few but weights many: vectors run over weights.

    Inputs are gathered to `[T, weights]`; `whole` are the positions' numbers in δ, filled up to whole tiles.
    """
    source, target, position, size, count = tables
    groups, filters, positions = delta.shape[1:]
    flat = np.zeros(a.shape[2] * size, a.dtype)
    columns, gradient = np.zeros((len(whole), count), a.dtype), np.empty((STRIP, count), a.dtype)
    starts = np.minimum(np.arange((filters + 3) // 4 * 4), filters - 1) * positions
    held = buffers()
    for b in range(start, stop):
        fill = 0
        for group in range(groups):
            lay_out(a[b, group], source, target, size, flat)
            for t in range(positions):
                seen, to = flat[position[t] :], columns[t]
                for r in range(count):
                    to[r] = seen[rows[r]]
            of = delta[b, group].ravel()
            fill = reduce_axpys(columns, of, starts, filters, whole, gradient, held, fill, out[b])
        finish(held, fill, out[b])


@compiled
def sequence_by_dots(a: Array, delta: Array, lags: int, rows: Array, out: Array, start: int, stop: int) -> None:
    """Reduce Σ_t δ_t a_tᵀ of a `[B, T, n]`, delta `[B, T, m]`, both transposed to make positions neighbours."""
    positions, inputs, outputs = a.shape[1], a.shape[2], delta.shape[2]
    flat = np.zeros(inputs * lags, a.dtype)
    whole = outputs if outputs < 3 else (outputs + 3) // 4 * 4
    spread, gradient = np.zeros((whole, lags), a.dtype), np.empty((STRIP, whole))
    held = buffers()
    for b in range(start, stop):
        for i in range(inputs):
            for t in range(positions):
                flat[i * lags + t] = a[b, t, i]
        for m in range(outputs):
            for t in range(positions):
                spread[m, t] = delta[b, t, m]
        finish(held, reduce_dots(spread, flat, rows, inputs, outputs, gradient, held, 0, out[b]), out[b])


@compiled
def sequence_over_outputs(a: Array, delta: Array, whole: Array, rows: Array, out: Array, start: int, stop: int) -> None:
    """Reduce the same gradients where positions are few and outputs many; `whole` are rows' starts in whole tiles."""
    columns = np.zeros((len(whole), delta.shape[2]), a.dtype)
    gradient = np.empty((STRIP, delta.shape[2]), a.dtype)
    held = buffers()
    for b in range(start, stop):
        columns[: delta.shape[1]] = delta[b]
        fill = reduce_axpys(columns, a[b].ravel(), rows, a.shape[2], whole, gradient, held, 0, out[b])
        finish(held, fill, out[b])
