"""Compiled loops of the numba back end. Functions that take `out` reduce samples start..stop of a batch into it.

LLVM may reorder only sums (`reassoc`), so that it can keep them in vectors. Nothing assumes that there is no NaN. There is
no `parallel=True`: the caller shares the samples among threads, so a row's bits do not depend on their number. All loops
are in one file, because numba's cache on disk notices changes only in the file of the function, not of those it calls.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])

BLOCK = 4096  # numbers summed about one shift
STRIP = 8  # weights summed side by side: a multiple of the tile's 4
FEW = 3  # with fewer filters in a group, or outputs, tiles would be mostly zeros
LANES = 16  # length of loops over neighbouring numbers: whole vectors without a rest
RUN = 1024  # lags summed in the arrays' own type; a multiple of every vector's length
SIGNS = np.int64(63)
FLIP = np.int64(0x7FFF_FFFF_FFFF_FFFF)  # all bits but the sign

# The numbers of a sample that wait to be reduced, float64 [BLOCK], and room for their accumulator, float64 [8].
Buffers = tuple[Array, Array]

# Constants that order a type's numbers by their bits: the place of the sign, all bits but the sign, and infinity.
Order = tuple[Any, Any, Any]

# A plane's numbers as integers in the same order. For each window: the number of one cell, the largest number, its cell.
Maxima = tuple[Array, Array, Array, Array]

# A max pool: each window's place in the pooled plane, and its cells `[kernel size, W]`. Last the number of columns of the
# plane if windows are separate squares of four cells, else 0.
Pooling = tuple[Array, Array, int]

# A layout of a convolution's input with all numbers of a cell side by side: where input cells lie in the padded plane (−1:
# cropped), the size of that plane, and the shift of each copy of a channel. Then where the numbers of each position begin,
# where runs of neighbours begin from there, and the length of a run.
Lanes = tuple[Array, int, Array, Array, Array, int]

# A convolution: source and target elements of a channel's layout, the place of each position in it, its size, and the
# number of weights. Indices are unsigned, because signed ones need a test for negative values.
Tables = tuple[Array, Array, Array, int, int]


def compiled(function: F) -> F:
    """Compile on the first call, keep the machine code on disk, and run without the interpreter's lock."""
    decorate = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
    return cast("F", decorate(function))


@compiled
def buffers() -> Buffers:
    """Allocate the buffers that one thread needs besides its tiles."""
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
    """Merge the accumulator of the first `count` numbers into `row`; powers are summed about the first number.

    Extremes are found among the numbers' bits, which have the order of the numbers once negative ones are flipped. LLVM
    vectorises comparisons of integers but not of floating-point numbers, whose result depends on the order if one is NaN.
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
    """Append numbers to the `fill` numbers that wait, and reduce every full block; return how many wait then."""
    block, done = held[0], 0
    while done < len(values):
        some = min(len(values) - done, BLOCK - fill)
        source, target = values[done : done + some], block[fill : fill + some]  # slices keep the indices simple
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
    """Reduce the numbers that wait; make the row NaN except for n if its gradient held NaN or Inf."""
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
def dot_tiles(delta: Array, flat: Array, rows: Array, start: int, stop: int, gradient: Array) -> None:
    """Add the products of lags start..stop to `gradient` `[rows, M]`, in tiles of 4 × 4 dot products.

    gradient[r, m] += Σ delta[m, l] flat[rows[r] + l]. Both counts are multiples of 4. The sixteen sums of a tile stay
    in registers; LLVM makes each a vector over l.
    """
    for m in range(0, delta.shape[0], 4):
        d0, d1 = delta[m, start:stop], delta[m + 1, start:stop]
        d2, d3 = delta[m + 2, start:stop], delta[m + 3, start:stop]
        for r in range(0, len(rows), 4):
            a0, a1 = flat[rows[r] + start : rows[r] + stop], flat[rows[r + 1] + start : rows[r + 1] + stop]
            a2, a3 = flat[rows[r + 2] + start : rows[r + 2] + stop], flat[rows[r + 3] + start : rows[r + 3] + stop]
            zero = delta.dtype.type(0)
            s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = zero
            s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = zero
            for t in range(stop - start):
                x0, x1, x2, x3 = d0[t], d1[t], d2[t], d3[t]
                y0, y1, y2, y3 = a0[t], a1[t], a2[t], a3[t]
                s00 += x0 * y0
                s01 += x0 * y1
                s02 += x0 * y2
                s03 += x0 * y3
                s10 += x1 * y0
                s11 += x1 * y1
                s12 += x1 * y2
                s13 += x1 * y3
                s20 += x2 * y0
                s21 += x2 * y1
                s22 += x2 * y2
                s23 += x2 * y3
                s30 += x3 * y0
                s31 += x3 * y1
                s32 += x3 * y2
                s33 += x3 * y3
            g0, g1, g2, g3 = gradient[r], gradient[r + 1], gradient[r + 2], gradient[r + 3]
            g0[m] += s00
            g1[m] += s01
            g2[m] += s02
            g3[m] += s03
            g0[m + 1] += s10
            g1[m + 1] += s11
            g2[m + 1] += s12
            g3[m + 1] += s13
            g0[m + 2] += s20
            g1[m + 2] += s21
            g2[m + 2] += s22
            g3[m + 2] += s23
            g0[m + 3] += s30
            g1[m + 3] += s31
            g2[m + 3] += s32
            g3[m + 3] += s33


@compiled
def dot_rows(delta: Array, flat: Array, all_rows: Array, gradient: Array) -> None:
    """Fill gradient `[M, count]` from delta `[M, lags]` in tiles of 1 × 3.

    gradient[m, r] = Σ delta[m, l] flat[all_rows[m, r] + l]: each filter has rows of its own. Small tiles compute no zeros
    where filters are few. The last tile repeats its last row, because a loop of another shape sums in another order.
    """
    gradient[:] = 0
    zero, count = delta.dtype.type(0), all_rows.shape[1]
    for m in range(len(delta)):
        rows, to = all_rows[m], gradient[m]
        for start in range(0, delta.shape[1], RUN):
            d = delta[m, start : start + RUN]
            for r in range(0, count, 3):
                second, third = min(r + 1, count - 1), min(r + 2, count - 1)
                a0, a1 = flat[rows[r] + start :][: len(d)], flat[rows[second] + start :][: len(d)]
                a2 = flat[rows[third] + start :][: len(d)]
                s0 = s1 = s2 = zero
                for t in range(len(d)):
                    s0 += d[t] * a0[t]
                    s1 += d[t] * a1[t]
                    s2 += d[t] * a2[t]
                to[r] += s0
                if second > r:
                    to[second] += s1
                if third > second:
                    to[third] += s2


@compiled
def axpy_tiles(delta: Array, flat: Array, rows: Array, position: Array, gradient: Array) -> None:
    """Add the products of all positions to `gradient` `[rows, M]`, four rows and four positions at a time.

    gradient[r, m] += Σ delta[t, m] flat[rows[r] + position[t]]. Counts of rows and positions are multiples of 4. Vectors
    run over m, which is faster than dot products where positions are few and filters many.
    """
    for t in range(0, len(position), 4):
        d0, d1, d2, d3 = delta[t], delta[t + 1], delta[t + 2], delta[t + 3]
        p0, p1, p2, p3 = position[t], position[t + 1], position[t + 2], position[t + 3]
        for r in range(0, len(rows), 4):
            f0, f1, f2, f3 = flat[rows[r] :], flat[rows[r + 1] :], flat[rows[r + 2] :], flat[rows[r + 3] :]
            a00, a01, a02, a03 = f0[p0], f0[p1], f0[p2], f0[p3]
            a10, a11, a12, a13 = f1[p0], f1[p1], f1[p2], f1[p3]
            a20, a21, a22, a23 = f2[p0], f2[p1], f2[p2], f2[p3]
            a30, a31, a32, a33 = f3[p0], f3[p1], f3[p2], f3[p3]
            g0, g1, g2, g3 = gradient[r], gradient[r + 1], gradient[r + 2], gradient[r + 3]
            for m in range(delta.shape[1]):
                x0, x1, x2, x3 = d0[m], d1[m], d2[m], d3[m]
                g0[m] += a00 * x0 + a01 * x1 + a02 * x2 + a03 * x3
                g1[m] += a10 * x0 + a11 * x1 + a12 * x2 + a13 * x3
                g2[m] += a20 * x0 + a21 * x1 + a22 * x2 + a23 * x3
                g3[m] += a30 * x0 + a31 * x1 + a32 * x2 + a33 * x3


@compiled
def axpy_lanes(delta: Array, flat: Array, rows: Array, position: Array, gradient: Array) -> None:
    """Fill the same sums for `LANES` neighbouring outputs, so that LLVM knows the number and distance of vectors."""
    gradient[:] = 0
    for r in range(0, len(rows), 4):
        f0, f1, f2, f3 = flat[rows[r] :], flat[rows[r + 1] :], flat[rows[r + 2] :], flat[rows[r + 3] :]
        g = gradient[r * LANES : (r + 4) * LANES]
        for t in range(0, len(position), 4):
            p0, p1, p2, p3 = position[t], position[t + 1], position[t + 2], position[t + 3]
            a00, a01, a02, a03 = f0[p0], f0[p1], f0[p2], f0[p3]
            a10, a11, a12, a13 = f1[p0], f1[p1], f1[p2], f1[p3]
            a20, a21, a22, a23 = f2[p0], f2[p1], f2[p2], f2[p3]
            a30, a31, a32, a33 = f3[p0], f3[p1], f3[p2], f3[p3]
            d = delta[t * LANES : (t + 4) * LANES]
            for m in range(LANES):
                x0, x1, x2, x3 = d[m], d[m + LANES], d[m + 2 * LANES], d[m + 3 * LANES]
                g[m] += a00 * x0 + a01 * x1 + a02 * x2 + a03 * x3
                g[m + LANES] += a10 * x0 + a11 * x1 + a12 * x2 + a13 * x3
                g[m + 2 * LANES] += a20 * x0 + a21 * x1 + a22 * x2 + a23 * x3
                g[m + 3 * LANES] += a30 * x0 + a31 * x1 + a32 * x2 + a33 * x3


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
    """Append G[r, m] = Σ_l delta[m, l] flat[rows[r] + l] for r < count, m < filters; return how many numbers wait."""
    for r in range(0, len(rows), STRIP):
        gradient[:] = 0
        for start in range(0, delta.shape[1], RUN):
            stop = min(start + RUN, delta.shape[1])
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
    """Append G[r, m] = Σ_t delta[t, m] flat[rows[r] + position[t]] for r < count; return how many numbers wait."""
    for r in range(0, len(rows), STRIP):
        gradient[:] = 0
        axpy_tiles(delta, flat, rows[r : r + STRIP], position, gradient)
        fill = append(gradient[: min(STRIP, count - r)].ravel(), held, fill, row)
    return fill


@compiled
def lay_out(a: Array, source: Array, target: Array, size: int, flat: Array) -> None:
    """Copy the channels `[C, in]` of one group into the layout of the tables."""
    for c in range(len(a)):
        plane, to = a[c], flat[c * size : (c + 1) * size]
        for i in range(len(target)):
            to[target[i]] = plane[source[i]]


@compiled
def spread_out(delta: Array, position: Array, spread: Array) -> None:
    """Copy the filters `[M, T]` of one group to the lags of their positions; zeros stay between them."""
    for m in range(len(delta)):
        of, to = delta[m], spread[m]
        for t in range(len(position)):
            to[position[t]] = of[t]


@compiled
def no_maxima(seen: Array, pooling: Pooling) -> Maxima:
    """Allocate the arrays that `maxima` fills, with room for its last vectors."""
    windows, slots, columns = pooling
    cells, many = seen.shape[-1] + columns + 2 * LANES, len(windows) + LANES
    keys, value, largest = np.zeros(cells, seen.dtype), np.empty(many, seen.dtype), np.empty(many, seen.dtype)
    return keys, value, largest, np.empty(many, slots.dtype)


@compiled
def maxima(seen: Array, order: Order, pooling: Pooling, found: Maxima) -> None:
    """Find each window's first maximum among seen `[cells]`, the bits of floating-point numbers; NaN is the largest.

    Inner loops run over cells or windows. They avoid what LLVM cannot vectorise: comparisons of floating-point numbers, and
    loads from memory that a store may change.
    """
    sign, flip, infinity = order
    keys, columns = found[0], pooling[2]
    for i in range(len(seen)):
        size = seen[i] & flip
        key = seen[i] ^ ((seen[i] >> sign) & flip)
        key = key if size > 0 else size  # 0 and −0 are equal
        keys[i] = flip if size > infinity else key
    if columns > 0:
        maxima_of_squares(len(pooling[0]), columns, found)
    else:
        maxima_of_slots(pooling[1], found)


@compiled
def maxima_of_slots(slots: Array, found: Maxima) -> None:
    """Find the first maxima of windows of any shape."""
    keys, value, largest, at = found
    cells = slots[0]
    for w in range(len(cells)):
        at[w] = cells[w]
        largest[w] = keys[np.uint64(cells[w])]
    for k in range(1, len(slots)):
        cells = slots[k]
        for w in range(len(cells)):
            value[w] = keys[np.uint64(cells[w])]
        for w in range(len(cells)):
            known, cell, new = largest[w], at[w], cells[w]
            at[w] = new if value[w] > known else cell
            largest[w] = max(value[w], known)


@compiled
def maxima_of_squares(windows: int, columns: int, found: Maxima) -> None:
    """Find the first maxima of squares, without a table; the next row overwrites what a row's last vector adds."""
    keys, _, largest, at = found
    across = columns // 2
    for w in range(0, windows, across):
        for x in range(0, across, LANES):
            corner = w // across * 2 * columns + 2 * x
            top, low, place, most = keys[corner:], keys[corner + columns :], at[w + x :], largest[w + x :]
            for i in range(LANES):
                upper, lower = max(top[2 * i], top[2 * i + 1]), max(low[2 * i], low[2 * i + 1])
                right = 1 if top[2 * i + 1] > top[2 * i] else 0
                below = columns + 1 if low[2 * i + 1] > low[2 * i] else columns
                place[i] = corner + 2 * i + (below if lower > upper else right)
                most[i] = max(upper, lower)


@compiled
def unpool(seen: Array, order: Order, pooled: Array, pooling: Pooling, delta: Array) -> None:
    """Clear δ, then add pooled `[planes, …]` at each window's first maximum of the activation.

    `seen` `[planes, cells]` is the activation as `maxima` takes it. A window with NaN passes NaN on.
    """
    windows, found = pooling[0], no_maxima(seen, pooling)
    _, _, largest, at = found
    for plane in range(len(pooled)):
        to, given = delta[plane], pooled[plane]
        to[:] = 0
        maxima(seen[plane], order, pooling, found)
        for w in range(len(windows)):
            known = given[np.uint64(windows[w])]
            to[np.uint64(at[w])] += known if largest[w] != order[1] else given.dtype.type(np.nan)


@compiled
def put_side_by_side(a: Array, lanes: Lanes, side: Array) -> None:
    """Copy the channels `[C, in]` of one group into the layout of `lanes`; cells without an input keep their value."""
    cells, _, shifts, _, _, _ = lanes
    pitch = len(a) * len(shifts)
    for copy in range(len(shifts)):
        for c in range(len(a)):
            plane, lane = a[c], copy * len(a) + c
            for i in range(len(cells)):
                if cells[i] >= shifts[copy]:
                    side[np.uint64((cells[i] - shifts[copy]) * pitch + lane)] = plane[i]


@compiled
def add_rows(flat: Array, starts: Array, at: Array, run: int, values: Array, to: Array) -> None:
    """Fill to[i] = Σ_w values[w] flat[starts[at[w]] + run + i]; the number of values is a multiple of 8."""
    to[:] = 0
    for w in range(0, len(values), 8):
        b0, b1 = starts[np.uint64(at[w])] + run, starts[np.uint64(at[w + 1])] + run
        b2, b3 = starts[np.uint64(at[w + 2])] + run, starts[np.uint64(at[w + 3])] + run
        b4, b5 = starts[np.uint64(at[w + 4])] + run, starts[np.uint64(at[w + 5])] + run
        b6, b7 = starts[np.uint64(at[w + 6])] + run, starts[np.uint64(at[w + 7])] + run
        v0, v1, v2, v3 = values[w], values[w + 1], values[w + 2], values[w + 3]
        v4, v5, v6, v7 = values[w + 4], values[w + 5], values[w + 6], values[w + 7]
        for lane in range(len(to)):
            i = np.uint64(lane)
            low = v0 * flat[b0 + i] + v1 * flat[b1 + i] + v2 * flat[b2 + i] + v3 * flat[b3 + i]
            to[i] += low + v4 * flat[b4 + i] + v5 * flat[b5 + i] + v6 * flat[b6 + i] + v7 * flat[b7 + i]


@compiled
def unpooled_conv(
    a: Array,
    seen: Array,
    order: Order,
    pooled: Array,
    pooling: Pooling,
    lanes: Lanes,
    out: Array,
    start: int,
    stop: int,
) -> None:
    """Reduce weight gradients of finite a `[B, groups, C, in]`, multiplying only at the first maxima of the windows.

    Vectors run over weights. `seen`, as `maxima` takes it, and `pooled` are `[B, groups, M, …]`.
    """
    _, size, shifts, starts, runs, width = lanes
    windows, filters, weights = pooling[0], seen.shape[2], len(runs) * width
    sums, chosen = np.empty((width + LANES - 1) // LANES * LANES, a.dtype), np.empty(len(windows), a.dtype)
    side = np.zeros(size * len(shifts) * a.shape[2] + LANES, a.dtype)
    values, gradient = np.zeros((len(windows) + 7) // 8 * 8, a.dtype), np.empty(max(BLOCK, weights), a.dtype)
    found, held = no_maxima(seen, pooling), buffers()
    _, _, largest, at = found
    for b in range(start, stop):
        fill = done = 0
        for group in range(a.shape[1]):
            put_side_by_side(a[b, group], lanes, side)
            for m in range(filters):
                given = pooled[b, group, m]
                maxima(seen[b, group, m], order, pooling, found)
                at[len(windows) :] = 0  # any valid cell: padding to whole tiles, whose values are 0
                if pooling[2] == 0:
                    for w in range(len(windows)):
                        chosen[w] = given[np.uint64(windows[w])]
                    given = chosen
                for w in range(len(windows)):
                    values[w] = given[w] if largest[w] != order[1] else given.dtype.type(np.nan)
                for run in range(len(runs)):
                    add_rows(side, starts, at, runs[run], values, sums)
                    to = gradient[done : done + width]
                    for i in range(width):
                        to[i] = sums[i]
                    done += width
                if done + weights > BLOCK:
                    fill, done = append(gradient[:done], held, fill, out[b]), 0
        finish(held, append(gradient[:done], held, fill, out[b]), out[b])


@compiled
def unpooled_input(
    a: Array,
    seen: Array,
    order: Order,
    pooled: Array,
    pooling: Pooling,
    tables: tuple[Array, Array, Array, int],
    weight: Array,
    slope: float,
    passed: Array,
    _out: Array,
    start: int,
    stop: int,
) -> None:
    """Fill `passed` `[B, groups, C, in]` from `seen`, as `maxima` takes it, and pooled `[B, groups, M, …]`.

    `tables` hold the places of positions, kernel positions and input cells in the padded plane. `weight` is
    `[groups, M, kernel positions, C]`.
    """
    positions, places, cells, size = tables
    groups, filters, count, channels = weight.shape
    delta = np.empty(seen.shape[2:], a.dtype)
    sums = np.empty((size, channels), a.dtype)
    for b in range(start, stop):
        for group in range(groups):
            unpool(seen[b, group], order, pooled[b, group], pooling, delta)
            sums[:] = 0
            for m in range(filters):
                row, own = delta[m], weight[group, m]
                for t in range(len(row)):
                    if row[t] != 0:
                        given = row[t]
                        for k in range(count):
                            to, factors = sums[positions[t] + places[k]], own[k]
                            for c in range(channels):
                                to[c] += given * factors[c]
            for c in range(channels):
                entered, to = a[b, group, c], passed[b, group, c]
                for i in range(len(cells)):
                    found = sums[cells[i], c] if cells[i] >= 0 else to.dtype.type(0)
                    to[i] = found if entered[i] > 0 else found * slope


@compiled
def conv_by_dots(
    a: Array, delta: Array, tables: Tables, lags: int, rows: Array, out: Array, start: int, stop: int
) -> None:
    """Reduce weight gradients of a `[B, groups, C, in]`, delta `[B, groups, M, T]`: vectors run over positions."""
    source, target, position, size, count = tables
    groups, filters = delta.shape[1:3]
    flat = np.zeros(a.shape[2] * size + lags, a.dtype)
    whole = (filters + 3) // 4 * 4
    spread, gradient = np.zeros((whole, lags), a.dtype), np.empty((STRIP, whole))
    held = buffers()
    for b in range(start, stop):
        fill = 0
        for group in range(groups):
            lay_out(a[b, group], source, target, size, flat)
            spread_out(delta[b, group], position, spread)
            fill = reduce_dots(spread, flat, rows, count, filters, gradient, held, fill, out[b])
        finish(held, fill, out[b])


@compiled
def conv_of_few(
    a: Array, delta: Array, tables: Tables, lags: int, rows: Array, out: Array, start: int, stop: int
) -> None:
    """Reduce the same gradients where a group has one or two filters: the weights of all groups together."""
    source, target, position, size, count = tables
    groups, filters = delta.shape[1:3]
    flat = np.zeros(a.shape[2] * size + lags, a.dtype)
    spread, gradient = np.zeros((filters, lags), a.dtype), np.empty((groups, filters, count))
    each = np.empty((filters, count), rows.dtype)
    each[:] = rows[:count]
    held = buffers()
    for b in range(start, stop):
        for group in range(groups):
            lay_out(a[b, group], source, target, size, flat)
            spread_out(delta[b, group], position, spread)
            dot_rows(spread, flat, each, gradient[group])
        finish(held, append(gradient.ravel(), held, 0, out[b]), out[b])


@compiled
def conv_of_planes(
    a: Array, delta: Array, masks: Array, rows: Array, margin: int, size: int, out: Array, start: int, stop: int
) -> None:
    """Reduce gradients of a `[B, groups, 1, in]` and delta `[B, groups, M, in]`, whose planes have the same size.

    So the input needs no new layout, only margins. `rows` `[J, kernel rows]` are offsets into the plane with margins.
    `masks` `[J, lags]` set δ to zero where an offset reaches beyond the end of a row.
    """
    groups, filters, cells = delta.shape[1:]
    flat, spread = np.zeros(size, a.dtype), np.zeros(masks.shape, a.dtype)
    plane, gradient = flat[margin : margin + cells], np.empty((groups, filters, *rows.shape))
    held = buffers()
    for b in range(start, stop):
        for group in range(groups):
            seen = a[b, group, 0]
            for i in range(cells):
                plane[i] = seen[i]
            for m in range(filters):
                of = delta[b, group, m]
                for j in range(len(masks)):
                    mask, to = masks[j], spread[j]
                    for i in range(cells):
                        to[i] = of[i] * mask[i]
                dot_rows(spread, flat, rows, gradient[group, m])
        finish(held, append(gradient.ravel(), held, 0, out[b]), out[b])


@compiled
def conv_over_filters(
    a: Array, delta: Array, tables: Tables, whole: Array, rows: Array, out: Array, start: int, stop: int
) -> None:
    """Reduce the same gradients where positions are few and filters many: vectors run over filters.

    `whole` holds the positions, padded to whole tiles.
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

    Inputs are gathered to `[T, weights]`. `whole` holds the numbers of the positions in δ, padded to whole tiles.
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
    """Reduce Σ_t δ_t a_tᵀ of a `[B, T, n]` and delta `[B, T, m]`, both transposed so that positions are neighbours."""
    positions, inputs, outputs = a.shape[1], a.shape[2], delta.shape[2]
    flat = np.zeros(inputs * lags, a.dtype)
    few, whole = outputs < FEW, outputs if outputs < FEW else (outputs + 3) // 4 * 4
    spread, gradient = np.zeros((whole, lags), a.dtype), np.empty((outputs, inputs) if few else (STRIP, whole))
    each = np.empty((outputs if few else 0, inputs), rows.dtype)
    each[:] = rows[:inputs]
    held = buffers()
    for b in range(start, stop):
        for i in range(inputs):
            for t in range(positions):
                flat[i * lags + t] = a[b, t, i]
        for m in range(outputs):
            for t in range(positions):
                spread[m, t] = delta[b, t, m]
        if few:
            dot_rows(spread, flat, each, gradient)
            fill = append(gradient.ravel(), held, 0, out[b])
        else:
            fill = reduce_dots(spread, flat, rows, inputs, outputs, gradient, held, 0, out[b])
        finish(held, fill, out[b])


@compiled
def sequence_over_outputs(a: Array, delta: Array, whole: Array, rows: Array, out: Array, start: int, stop: int) -> None:
    """Reduce the same gradients where positions are few and outputs many; `whole` holds where positions begin."""
    inputs, outputs = a.shape[2], delta.shape[2]
    columns, gradient = np.zeros((len(whole), LANES), a.dtype), np.empty((len(rows), LANES), a.dtype)
    held = buffers()
    for b in range(start, stop):
        fill = 0
        for m in range(0, outputs, LANES):
            some = min(LANES, outputs - m)
            for t in range(delta.shape[1]):
                of, to = delta[b, t, m : m + some], columns[t]
                for i in range(some):
                    to[i] = of[i]
            axpy_lanes(columns.ravel(), a[b].ravel(), rows, whole, gradient.ravel())
            if some == LANES:
                fill = append(gradient[:inputs].ravel(), held, fill, out[b])
            else:
                for i in range(inputs):
                    fill = append(gradient[i, :some], held, fill, out[b])
        finish(held, fill, out[b])
