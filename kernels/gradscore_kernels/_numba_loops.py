"""Compiled loops of the numba back end. Every function reduces samples start..stop of a batch into `out`.

Only sums may be reordered (`reassoc`), which lets LLVM keep them in vectors; nothing assumes that NaN is absent. No
`parallel=True`: samples are shared among threads by the caller, so a row's bits never depend on it.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])

BLOCK = 4096  # numbers summed about one shift
STRIP = 8  # weights whose inputs are gathered side by side; a multiple of the 4 × 4 tile
RUN = 1024  # positions summed in the arrays' own type; a multiple of every vector's length
LANES = 16


def compiled(function: F) -> F:
    """Compile on first call, keep the machine code on disk, run without the interpreter's lock."""
    decorate = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
    return cast(F, decorate(function))


@compiled
def fold(values: Array, low: Array, high: Array) -> tuple[float, float]:
    """Return minimum and maximum of at most `BLOCK` numbers, halving by halving: vectors without reordering NaN."""
    count = len(values)
    half = (count + 1) // 2
    for i in range(count - half):
        x, y = values[i], values[i + half]
        low[i] = x if x < y else y
        high[i] = x if x > y else y
    if count % 2:
        low[half - 1] = high[half - 1] = values[half - 1]
    while half > 1:
        count, half = half, (half + 1) // 2
        for i in range(count - half):
            low[i] = low[i] if low[i] < low[i + half] else low[i + half]
            high[i] = high[i] if high[i] > high[i + half] else high[i + half]
    return low[0], high[0]


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
def reduce(values: Array, row: Array, block: Array, low: Array, high: Array) -> None:
    """Merge the accumulator of `values` into `row`; powers are summed about each block's first number."""
    for start in range(0, len(values), BLOCK):
        part = values[start : start + BLOCK]
        n = len(part)
        shift = np.float64(part[0])
        size = s1 = s2 = s3 = s4 = 0.0
        for i in range(n):
            x = np.float64(part[i])
            d = x - shift
            square = d * d
            size += abs(x)
            s1 += d
            s2 += square
            s3 += square * d
            s4 += square * square
        mean = s1 / n
        block[0] = n
        block[1] = size
        block[2] = shift + mean
        block[3] = max(s2 - n * mean * mean, 0.0)
        block[4] = s3 - mean * (3 * s2 - 2 * n * mean * mean)
        block[5] = s4 - mean * (4 * s3 - mean * (6 * s2 - 3 * n * mean * mean))
        block[6], block[7] = fold(part, low, high)
        merge(row, block)


@compiled
def finish(row: Array) -> None:
    """Make the row NaN but for n if its gradient held NaN or Inf."""
    if not np.isfinite(row[1]):
        row[1:] = np.nan


@compiled
def direct(g: Array, out: Array, start: int, stop: int) -> None:
    """Reduce g `[B, n]`."""
    low, high, block = np.empty(BLOCK, g.dtype), np.empty(BLOCK, g.dtype), np.empty(8)
    for b in range(start, stop):
        reduce(g[b], out[b], block, low, high)
        finish(out[b])


@compiled
def position_sum(delta: Array, out: Array, start: int, stop: int) -> None:
    """Reduce Σ_t of delta `[B, M, T]`."""
    low, high, block = np.empty(BLOCK), np.empty(BLOCK), np.empty(8)
    sums = np.empty(delta.shape[1])
    for b in range(start, stop):
        for channel in range(delta.shape[1]):
            total = 0.0
            for t in range(delta.shape[2]):
                total += np.float64(delta[b, channel, t])
            sums[channel] = total
        reduce(sums, out[b], block, low, high)
        finish(out[b])


@compiled
def sequence_sum(delta: Array, out: Array, start: int, stop: int) -> None:
    """Reduce Σ_t of delta `[B, T, m]`."""
    low, high, block = np.empty(BLOCK), np.empty(BLOCK), np.empty(8)
    sums = np.empty(delta.shape[2])
    for b in range(start, stop):
        sums[:] = 0
        for t in range(delta.shape[1]):
            for i in range(delta.shape[2]):
                sums[i] += np.float64(delta[b, t, i])
        reduce(sums, out[b], block, low, high)
        finish(out[b])


@compiled
def embedding(ids: Array, order: Array, delta: Array, vocabulary: int, out: Array, start: int, stop: int) -> None:
    """Reduce the table's gradient row by row: `order` `[B, T]` sorts each sample's positions by id."""
    low, high, block = np.empty(BLOCK), np.empty(BLOCK), np.empty(8)
    positions, width = delta.shape[1:]
    sums = np.empty(width)
    for b in range(start, stop):
        touched, i = 0, 0
        while i < positions:
            row = ids[b, order[b, i]]
            sums[:] = 0
            while i < positions and ids[b, order[b, i]] == row:
                for j in range(width):
                    sums[j] += np.float64(delta[b, order[b, i], j])
                i += 1
            reduce(sums, out[b], block, low, high)
            touched += 1
        if touched < vocabulary:
            block[:] = 0
            block[0] = np.float64(vocabulary - touched) * width
            merge(out[b], block)
        finish(out[b])


@compiled
def tiles(delta: Array, strip: Array, gradient: Array) -> None:
    """Add δ aᵀ to `gradient` `[STRIP, M]`: delta `[M, T]`, strip `[STRIP, T]`, in tiles of 4 × 4 dot products.

    M is a multiple of 4. The sixteen sums live in registers, LLVM makes each a vector over t.
    """
    for m in range(0, delta.shape[0], 4):
        d0, d1, d2, d3 = delta[m], delta[m + 1], delta[m + 2], delta[m + 3]
        for r in range(0, strip.shape[0], 4):
            a0, a1, a2, a3 = strip[r], strip[r + 1], strip[r + 2], strip[r + 3]
            zero = delta.dtype.type(0)
            s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = zero
            s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = zero
            for t in range(delta.shape[1]):
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
