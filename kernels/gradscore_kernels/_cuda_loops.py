"""Device code of the CUDA back end: every thread forms some elements of a gradient and forgets them at once.

A block reduces one chunk of one sample's gradient, whatever the batch or the card, so a row's bits depend on neither.
Sums over positions are kept in the arrays' own type for `RUN` positions, then in float64; all else is float64.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar, cast

import numpy as np
from numba import config
from numpy.typing import NDArray

Array = NDArray[Any]
Given = tuple[Any, ...]
F = TypeVar("F", bound=Callable[..., Any])

cuda: Any = import_module("numba.cuda")
SIMULATED: bool = vars(config)["ENABLE_CUDASIM"] > 0
THREADS = 4 if SIMULATED else 128  # a thread of the simulator is one of the operating system's, and slow
PER_THREAD = 16
CHUNK = THREADS * PER_THREAD
RUN = 128


def on_device(function: F) -> F:
    """Compile for calls from device code."""
    return cast("F", cuda.jit(device=True)(function))


def launched(function: Callable[..., None]) -> Any:
    """Compile for launches from the host."""
    return cuda.jit(function)


@on_device
def clear(sums: Array) -> None:
    """Begin with no number: count, shift, Σ|g|, Σd, Σd², Σd³, Σd⁴, minimum, maximum, with d = g − shift."""
    for i in range(9):
        sums[i] = 0.0
    sums[7], sums[8] = np.inf, -np.inf


@on_device
def add(sums: Array, value: float) -> None:
    """Take one number in; powers are summed about the first."""
    if sums[0] == 0:
        sums[1] = value
    d = value - sums[1]
    square = d * d
    sums[0] += 1
    sums[2] += abs(value)
    sums[3] += d
    sums[4] += square
    sums[5] += square * d
    sums[6] += square * square
    sums[7] = min(sums[7], value)
    sums[8] = max(sums[8], value)


@on_device
def settle(sums: Array, row: Array) -> None:
    """Write the accumulator of the numbers taken in."""
    n = sums[0]
    mean = sums[3] / n if n > 0 else 0.0
    row[0] = n
    row[1] = sums[2]
    row[2] = sums[1] + mean
    row[3] = max(sums[4] - n * mean * mean, 0.0)
    row[4] = sums[5] - mean * (3 * sums[4] - 2 * n * mean * mean)
    row[5] = sums[6] - mean * (4 * sums[5] - mean * (6 * sums[4] - 3 * n * mean * mean))
    row[6] = sums[7]
    row[7] = sums[8]


@on_device
def merge(row: Array, other: Array) -> None:
    """Merge accumulator `other` into `row` (Pébay 2008, eqs. 2.1 and 3.1)."""
    n, m = row[0], other[0]
    if m == 0:
        return
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
    row[2] = row[2] + m * share if n > 0 else other[2]
    row[1] += other[1]
    row[6] = min(row[6], other[6])
    row[7] = max(row[7], other[7])
    row[0] = total


def reducing(element: Callable[[Given, int, int], float]) -> Any:
    """Make the kernel that reduces `element(given, sample, number)` to one accumulator a chunk, `[B, chunks, 8]`."""

    @launched
    def reduce(given: Given, counts: Array, chunks: Array) -> None:
        thread = cuda.threadIdx.x
        sample, chunk = cuda.blockIdx.x // chunks.shape[1], cuda.blockIdx.x % chunks.shape[1]
        sums = cuda.local.array(9, np.float64)
        rows = cuda.shared.array((THREADS, 8), np.float64)
        clear(sums)
        for turn in range(PER_THREAD):
            number = chunk * CHUNK + turn * THREADS + thread
            if number < counts[sample]:
                add(sums, element(given, sample, number))
        settle(sums, rows[thread])
        cuda.syncthreads()
        step = THREADS // 2
        while step > 0:
            if thread < step:
                merge(rows[thread], rows[thread + step])
            cuda.syncthreads()
            step //= 2
        if thread == 0:
            for i in range(8):
                chunks[sample, chunk, i] = rows[0, i]

    return reduce


@launched
def merge_chunks(chunks: Array, out: Array) -> None:
    """Merge every sample's chunks in order, one thread a sample."""
    sample = cuda.grid(1)
    if sample < len(out):
        for i in range(8):
            out[sample, i] = chunks[sample, 0, i]
        for chunk in range(1, chunks.shape[1]):
            merge(out[sample], chunks[sample, chunk])


@on_device
def direct_element(given: Given, sample: int, number: int) -> float:
    """Read an element of g `[B, n]`."""
    return np.float64(given[0][sample, number])


@on_device
def position_sum_element(given: Given, sample: int, number: int) -> float:
    """Sum δ `[B, M, T]` over positions."""
    row = given[0][sample, number]
    total = 0.0
    for t in range(len(row)):
        total += np.float64(row[t])
    return total


@on_device
def sequence_sum_element(given: Given, sample: int, number: int) -> float:
    """Sum δ `[B, T, m]` over positions; neighbouring threads read neighbouring numbers."""
    delta = given[0][sample]
    total = 0.0
    for t in range(len(delta)):
        total += np.float64(delta[t, number])
    return total


@on_device
def sequence_element(given: Given, sample: int, number: int) -> float:
    """Multiply column `number // m` of a `[B, T, n]` with column `number % m` of δ `[B, T, m]`."""
    a, delta = given[0][sample], given[1][sample]
    column, output = number // delta.shape[1], number % delta.shape[1]
    total = 0.0
    for start in range(0, len(a), RUN):
        run = a[start, column] * delta[start, output]
        for t in range(start + 1, min(start + RUN, len(a))):
            run += a[t, column] * delta[t, output]
        total += np.float64(run)
    return total


@on_device
def conv_element(given: Given, sample: int, number: int) -> float:
    """Multiply δ `[B, M, T]` of one filter with the cells that one weight meets in a `[B, C, in]`.

    `cells` `[K, T]` numbers them, −1 for padding; `groups` holds the channels and filters of one group.
    """
    a, delta, cells, groups = given
    weights = groups[0] * len(cells)
    m, weight = number // weights, number % weights
    plane = a[sample, m // groups[1] * groups[0] + weight // len(cells)]
    row, met = delta[sample, m], cells[weight % len(cells)]
    total = 0.0
    for start in range(0, len(row), RUN):
        run = row[start] * (plane[met[start]] if met[start] >= 0 else row.dtype.type(0))
        for t in range(start + 1, min(start + RUN, len(row))):
            run += row[t] * (plane[met[t]] if met[t] >= 0 else row.dtype.type(0))
        total += np.float64(run)
    return total


@on_device
def embedding_element(given: Given, sample: int, number: int) -> float:
    """Sum δ `[B, T, d]` over the positions of one touched row: `order[first[u]] … order[first[u + 1] − 1]`."""
    delta, order, first = given
    width = delta.shape[2]
    row, column = number // width, number % width
    total = 0.0
    for i in range(first[sample, row], first[sample, row + 1]):
        total += np.float64(delta[sample, order[sample, i], column])
    return total


@launched
def unpool(activation: Array, pooled: Array, windows: Array, cells: Array, delta: Array) -> None:
    """Add pooled `[planes, …]` at the first maximum of its window in activation `[planes, …]`, one thread a plane."""
    plane = cuda.grid(1)
    if plane < len(delta):
        seen, given, to = activation[plane], pooled[plane], delta[plane]
        for i in range(len(to)):
            to[i] = 0
        for w in range(len(windows)):
            at = cells[w, 0]
            largest = seen[at]
            for k in range(1, cells.shape[1]):
                value = seen[cells[w, k]]
                if value > largest or value != value:  # noqa: PLR0124 - true of NaN alone
                    at, largest = cells[w, k], value
            to[at] += given[windows[w]] if largest == largest else largest  # noqa: PLR0124 - NaN is passed on


@launched
def conv_input(
    a: Array, delta: Array, weight: Array, positions: Array, filters: int, slope: float, passed: Array
) -> None:
    """Sum what δ `[B, M, T]` passes back through weight `[M, C, K]`, one thread an element of a `[B, groups · C, in]`.

    `positions` `[K, in]` tells at which position a weight meets a cell (−1: none); `filters` are those of one group.
    """
    number = cuda.grid(1)
    cells, channels = a.shape[2], weight.shape[1]
    if number < a.shape[0] * a.shape[1] * cells:
        sample, plane, cell = number // cells // a.shape[1], number // cells % a.shape[1], number % cells
        first = plane // channels * filters
        total = 0.0
        for m in range(first, first + filters):
            for k in range(len(positions)):
                t = positions[k, cell]
                if t >= 0:
                    total += np.float64(delta[sample, m, t] * weight[m, plane % channels, k])
        passed[sample, plane, cell] = total if a[sample, plane, cell] > 0 else total * slope


direct = reducing(direct_element)
position_sum = reducing(position_sum_element)
sequence_sum = reducing(sequence_sum_element)
sequence = reducing(sequence_element)
conv = reducing(conv_element)
embedding = reducing(embedding_element)
