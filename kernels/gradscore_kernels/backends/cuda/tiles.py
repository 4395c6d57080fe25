"""Device code of the CUDA back end: gradients of many weights, computed tile by tile and never stored.

A block multiplies `ROWS` rows of δ with `COLUMNS` rows of the unfolded input. Both come to shared memory, `SLAB` positions
at a time. Every thread holds some elements of the tile. Sums are kept in the arrays' own type for `RUN` positions, then in
float64.
"""

from collections.abc import Callable
from dataclasses import dataclass
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
Fetch = Callable[[Given, int, int, int, int, int, Array], None]

ROWS_EACH, COLUMNS_EACH = 8, 4  # elements of a thread
THREAD_COLUMNS = 2 if SIMULATED else 16
THREAD_ROWS = THREADS // THREAD_COLUMNS
ROWS, COLUMNS = THREAD_ROWS * ROWS_EACH, THREAD_COLUMNS * COLUMNS_EACH
ROWS_APART, COLUMNS_APART = ROWS + 1, COLUMNS + 1  # one more, so that a warp writes to different memory banks
SLAB = 16
ROW_LOADS, COLUMN_LOADS = ROWS * SLAB // THREADS, COLUMNS * SLAB // THREADS  # of a thread, for one slab
RUN = 128


@on_device
def clear_tile(tile: Array) -> None:
    """Set a thread's elements of a tile to 0."""
    for i in range(ROWS_EACH):
        for j in range(COLUMNS_EACH):
            tile[i, j] = 0


@on_device
def multiply(lefts: Array, rights: Array, y: np.uint64, x: np.uint64, column: Array, run: Array) -> None:
    """Add a slab's products to a thread's elements.

    These are every THREAD_ROWS-th row from y on, and every THREAD_COLUMNS-th column from x on.
    """
    for t in range(0, SLAB, 4):  # unrolled, so that the GPU reads some while it multiplies others
        multiply_one(lefts[t], rights[t], y, x, column, run)
        multiply_one(lefts[t + 1], rights[t + 1], y, x, column, run)
        multiply_one(lefts[t + 2], rights[t + 2], y, x, column, run)
        multiply_one(lefts[t + 3], rights[t + 3], y, x, column, run)


@on_device
def multiply_one(left: Array, right: Array, y: np.uint64, x: np.uint64, column: Array, run: Array) -> None:
    """Add the products of one position; unsigned indices need no test for negative ones."""
    for j in range(COLUMNS_EACH):
        column[j] = right[x + np.uint64(j * THREAD_COLUMNS)]
    for i in range(ROWS_EACH):
        value = left[y + np.uint64(i * THREAD_ROWS)]
        for j in range(COLUMNS_EACH):
            run[i, j] += value * column[j]


@on_device
def end_run(run: Array, total: Array) -> None:
    """Move the sums so far into float64."""
    for i in range(ROWS_EACH):
        for j in range(COLUMNS_EACH):
            total[i, j] += np.float64(run[i, j])
            run[i, j] = 0


@on_device
def add_tile(sums: Array, total: Array, height: int, width: int, shift: float) -> None:
    """Add those of a thread's elements that lie within the first `height` rows and `width` columns."""
    for i in range(ROWS_EACH):
        for j in range(COLUMNS_EACH):
            if i * THREAD_ROWS < height and j * THREAD_COLUMNS < width:
                add(sums, total[i, j], shift)


@dataclass(frozen=True)
class Side:
    """One factor of the product: how a thread fetches its part of a slab, and where it puts it.

    Attributes
    ----------
    fetch
        Takes (given, sample, group, first row of the tile, first position of the slab, thread, array to fill).
    put
        Takes (slab, thread, filled array).
    """

    fetch: Fetch
    put: Callable[[Array, int, Array], None]


def tiling(left: Side, right: Side, dtype: type[np.floating[Any]]) -> Any:
    """Make the kernel that reduces the product of two sides to one accumulator per tile.

    Threads fetch the next slab from device memory while they multiply the current one.
    """
    fetch_left, put_left, fetch_right, put_right = left.fetch, left.put, right.fetch, right.put

    @launched
    def reduce(given: Given, groups: int, height: int, width: int, positions: int, rows: Array, begin: int) -> None:
        thread, block = cuda.threadIdx.x, cuda.blockIdx.x
        across, down = (width + COLUMNS - 1) // COLUMNS, (height + ROWS - 1) // ROWS
        first_row, first_column = block // across % down * ROWS, block % across * COLUMNS
        group, sample = block // (across * down) % groups, block // (across * down * groups)
        y, x = thread // THREAD_COLUMNS, thread % THREAD_COLUMNS
        lefts = cuda.shared.array((SLAB, ROWS_APART), dtype)
        rights = cuda.shared.array((SLAB, COLUMNS_APART), dtype)
        shift = cuda.shared.array(1, np.float64)
        run = cuda.local.array((ROWS_EACH, COLUMNS_EACH), dtype)
        total = cuda.local.array((ROWS_EACH, COLUMNS_EACH), np.float64)
        column = cuda.local.array(COLUMNS_EACH, dtype)
        next_lefts = cuda.local.array(ROW_LOADS, dtype)
        next_rights = cuda.local.array(COLUMN_LOADS, dtype)
        sums = cuda.local.array(8, np.float64)
        clear_tile(run)
        clear_tile(total)
        fetch_left(given, sample, group, first_row, 0, thread, next_lefts)
        fetch_right(given, sample, group, first_column, 0, thread, next_rights)
        for start in range(0, positions, SLAB):
            put_left(lefts, thread, next_lefts)
            put_right(rights, thread, next_rights)
            cuda.syncthreads()
            fetch_left(given, sample, group, first_row, start + SLAB, thread, next_lefts)
            fetch_right(given, sample, group, first_column, start + SLAB, thread, next_rights)
            multiply(lefts, rights, np.uint64(y), np.uint64(x), column, run)
            cuda.syncthreads()
            if (start + SLAB) % RUN == 0 or start + SLAB >= positions:
                end_run(run, total)
        if thread == 0:
            shift[0] = total[0, 0]
        cuda.syncthreads()
        clear(sums)
        add_tile(sums, total, height - first_row - y, width - first_column - x, shift[0])
        reduce_block(sums, shift[0], thread, rows[begin + block])

    return reduce


@on_device
def fetch_filters(given: Given, sample: int, group: int, first: int, start: int, thread: int, values: Array) -> None:
    """Fetch from δ `[B, M, T]`, which is `given[1]`; `given[5]` is the number of filters of one group."""
    delta, filters = given[1], given[5]
    for load in range(ROW_LOADS):
        row, t = first + (load * THREADS + thread) // SLAB, start + (load * THREADS + thread) % SLAB
        inside = row < filters and t < delta.shape[2]
        values[load] = delta[sample, group * filters + row, t] if inside else delta.dtype.type(0)


@on_device
def fetch_weights(given: Given, sample: int, group: int, first: int, start: int, thread: int, values: Array) -> None:
    """Fetch the cells that each weight meets in a `[B, C, in]`.

    `cells` `[K, T]` holds the numbers of these cells (−1: padding). `places` `[weights, 2]` holds each weight's channel
    within its group and its kernel position.
    """
    a, cells, places, channels = given[0], given[2], given[3], given[4]
    for load in range(COLUMN_LOADS):  # loads without a branch run at the same time, so the loop always loads some cell
        weight, t = first + (load * THREADS + thread) // SLAB, start + (load * THREADS + thread) % SLAB
        known, position = np.uint64(min(weight, len(places) - 1)), np.uint64(min(t, cells.shape[1] - 1))
        cell = cells[np.uint64(places[known, 1]), position]
        value = a[np.uint64(sample), np.uint64(group * channels + places[known, 0]), np.uint64(max(cell, 0))]
        met = (cell >= 0) & (weight < len(places)) & (t < cells.shape[1])
        values[load] = value if met else a.dtype.type(0)


@on_device
def put_left_along_positions(slab: Array, thread: int, values: Array) -> None:
    """Put values into the left slab where neighbouring threads fetched neighbouring positions."""
    for load in range(ROW_LOADS):
        slab[(load * THREADS + thread) % SLAB, (load * THREADS + thread) // SLAB] = values[load]


@on_device
def put_right_along_positions(slab: Array, thread: int, values: Array) -> None:
    """Put values into the right slab where neighbouring threads fetched neighbouring positions."""
    for load in range(COLUMN_LOADS):
        slab[(load * THREADS + thread) % SLAB, (load * THREADS + thread) // SLAB] = values[load]


@on_device
def fetch_outputs(given: Given, sample: int, _group: int, first: int, start: int, thread: int, values: Array) -> None:
    """Fetch from δ `[B, T, m]`."""
    delta = given[1]
    for load in range(ROW_LOADS):
        row, t = first + (load * THREADS + thread) % ROWS, start + (load * THREADS + thread) // ROWS
        inside = row < delta.shape[2] and t < delta.shape[1]
        values[load] = delta[sample, t, row] if inside else delta.dtype.type(0)


@on_device
def fetch_inputs(given: Given, sample: int, _group: int, first: int, start: int, thread: int, values: Array) -> None:
    """Fetch from a `[B, T, n]`."""
    a = given[0]
    for load in range(COLUMN_LOADS):
        row, t = first + (load * THREADS + thread) % COLUMNS, start + (load * THREADS + thread) // COLUMNS
        inside = row < a.shape[2] and t < a.shape[1]
        values[load] = a[sample, t, row] if inside else a.dtype.type(0)


@on_device
def put_left_along_rows(slab: Array, thread: int, values: Array) -> None:
    """Put values into the left slab where neighbouring threads fetched neighbouring rows."""
    for load in range(ROW_LOADS):
        slab[(load * THREADS + thread) // ROWS, (load * THREADS + thread) % ROWS] = values[load]


@on_device
def put_right_along_rows(slab: Array, thread: int, values: Array) -> None:
    """Put values into the right slab where neighbouring threads fetched neighbouring rows."""
    for load in range(COLUMN_LOADS):
        slab[(load * THREADS + thread) // COLUMNS, (load * THREADS + thread) % COLUMNS] = values[load]


FILTERS, WEIGHTS = Side(fetch_filters, put_left_along_positions), Side(fetch_weights, put_right_along_positions)
OUTPUTS, INPUTS = Side(fetch_outputs, put_left_along_rows), Side(fetch_inputs, put_right_along_rows)
FLOATS = (np.float32, np.float64)
CONV = {np.dtype(kind): tiling(FILTERS, WEIGHTS, kind) for kind in FLOATS}
SEQUENCE = {np.dtype(kind): tiling(OUTPUTS, INPUTS, kind) for kind in FLOATS}
