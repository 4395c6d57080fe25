"""Device code of the CUDA back end: gradients whose elements are computed one by one and never stored.

A block reduces one chunk of one sample's gradient. Chunks depend neither on the batch nor on the GPU, so a row's bits do
not either. All sums are in float64.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradscore_kernels.backends.cuda.moments import (
    SIMULATED,
    THREADS,
    Array,
    add,
    clear,
    cuda,
    launched,
    on_device,
    reduce_block,
)

Given = tuple[Any, ...]

PER_THREAD = 16
CHUNK = THREADS * PER_THREAD
LANES = 2 if SIMULATED else 32  # threads that share the positions of one element
TEAMS = THREADS // LANES
PER_TEAM = 8
SHORT_CHUNK = TEAMS * PER_TEAM


def reducing(element: Callable[[Given, int, int], float]) -> Any:
    """Make the kernel that reduces `element(given, sample, number)` to one accumulator per `CHUNK` elements.

    Sample b has `counts[b]` elements, or `counts[-1]` where there are fewer counts than samples.
    """

    @launched
    def reduce(given: Given, counts: Array, each: int, rows: Array, begin: int) -> None:
        thread, sample, chunk = cuda.threadIdx.x, cuda.blockIdx.x // each, cuda.blockIdx.x % each
        count = counts[min(sample, len(counts) - 1)]
        first = chunk * CHUNK
        shift = cuda.shared.array(1, np.float64)
        sums = cuda.local.array(8, np.float64)
        clear(sums)
        if thread == 0:
            shift[0] = element(given, sample, first) if first < count else 0.0
        cuda.syncthreads()
        for number in range(first + thread, min(first + CHUNK, count), THREADS):
            add(sums, element(given, sample, number), shift[0])
        reduce_block(sums, shift[0], thread, rows[begin + cuda.blockIdx.x])

    return reduce


def summing(part: Callable[[Given, int, int, int], float]) -> Any:
    """Make the kernel that reduces elements that sum over many positions, `SHORT_CHUNK` elements a chunk.

    `LANES` threads share each element: `part(given, sample, number, lane)` sums every LANES-th position.
    """

    @launched
    def reduce(given: Given, counts: Array, each: int, rows: Array, begin: int) -> None:
        thread, sample, chunk = cuda.threadIdx.x, cuda.blockIdx.x // each, cuda.blockIdx.x % each
        team, lane = thread // LANES, thread % LANES
        count = counts[min(sample, len(counts) - 1)]
        parts = cuda.shared.array(THREADS, np.float64)
        sums = cuda.local.array(8, np.float64)
        clear(sums)
        shift = 0.0
        for turn in range(PER_TEAM):
            number = chunk * SHORT_CHUNK + turn * TEAMS + team
            parts[thread] = part(given, sample, number, lane) if number < count else 0.0
            cuda.syncthreads()
            step = LANES // 2
            while step > 0:
                if lane < step:
                    parts[thread] += parts[thread + step]
                cuda.syncthreads()
                step //= 2
            if turn == 0:
                shift = parts[0]
            if lane == 0 and number < count:
                add(sums, parts[thread], shift)
            cuda.syncthreads()
        reduce_block(sums, shift, thread, rows[begin + cuda.blockIdx.x])

    return reduce


@on_device
def direct_element(given: Given, sample: int, number: int) -> float:
    """Read an element of g `[B, n]`."""
    return np.float64(given[0][sample, number])


@on_device
def sequence_sum_element(given: Given, sample: int, number: int) -> float:
    """Sum δ `[B, T, m]` over positions; neighbouring threads read neighbouring outputs."""
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
    for t in range(len(a)):
        total += np.float64(a[t, column]) * np.float64(delta[t, output])
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


@on_device
def position_sum_part(given: Given, sample: int, number: int, lane: int) -> float:
    """Sum δ `[B, M, T]` over positions."""
    row = given[0][sample, number]
    total = 0.0
    for t in range(lane, len(row), LANES):
        total += np.float64(row[t])
    return total


@on_device
def conv_part(given: Given, sample: int, number: int, lane: int) -> float:
    """Multiply δ `[B, M, T]` of one filter with the cells that one weight meets in a `[B, C, in]`.

    `cells` `[K, T]` holds the numbers of these cells (−1: padding). `places` `[weights, 2]` holds each weight's channel
    within its group and its kernel position. `channels` and `filters` are those of one group.
    """
    a, delta, cells, places, channels, filters = given
    m, weight = number // len(places), number % len(places)
    plane = a[sample, m // filters * channels + places[weight, 0]]
    row, met = delta[sample, m], cells[places[weight, 1]]
    total = 0.0
    for t in range(lane, len(row), LANES):
        total += np.float64(row[t]) * (np.float64(plane[met[t]]) if met[t] >= 0 else 0.0)
    return total


@launched
def unpool(activation: Array, pooled: Array, windows: Array, cells: Array, covering: Array, delta: Array) -> None:
    """Add pooled `[planes, …]` at the first maximum of its window in activation `[planes, …]`, cell by cell.

    `windows` `[W]` and `cells` `[W, K]` come from `PoolGeometry.windows`. `covering` `[cells, …]` lists the windows that
    each cell lies in (−1: no more).
    """
    for number in range(cuda.grid(1), delta.size, cuda.gridsize(1)):
        plane, cell = number // delta.shape[1], number % delta.shape[1]
        seen, given = activation[plane], pooled[plane]
        delta[plane, cell] = 0
        for i in range(covering.shape[1]):
            w = covering[cell, i]
            if w >= 0:
                at = cells[w, 0]
                largest = seen[at]
                for k in range(1, cells.shape[1]):
                    value = seen[cells[w, k]]
                    if value > largest or value != value:  # noqa: PLR0124 - true only for NaN
                        at, largest = cells[w, k], value
                if at == cell:
                    delta[plane, cell] += given[windows[w]] if largest == largest else largest  # noqa: PLR0124 - NaN is passed on


@launched
def conv_input(
    a: Array, delta: Array, weight: Array, positions: Array, filters: int, slope: float, passed: Array
) -> None:
    """Sum what δ `[B, M, T]` passes back through weight `[M, C, K]`, element by element of a `[B, groups · C, in]`.

    `positions` `[K, in]` holds the position at which a weight meets a cell (−1: none). `filters` are those of one group.
    """
    cells, channels = a.shape[2], weight.shape[1]
    for number in range(cuda.grid(1), passed.size, cuda.gridsize(1)):
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
sequence_sum = reducing(sequence_sum_element)
sequence = reducing(sequence_element)
embedding = reducing(embedding_element)
position_sum = summing(position_sum_part)
conv = summing(conv_part)
