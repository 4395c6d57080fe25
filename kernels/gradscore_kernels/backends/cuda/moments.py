"""Device code of the CUDA back end: reduces numbers to accumulators, and merges accumulators."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar, cast

import numpy as np
from numba import config
from numpy.typing import NDArray

Array = NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])

cuda: Any = import_module("numba.cuda")
vars(config)["CUDA_LOW_OCCUPANCY_WARNINGS"] = 0  # a layer with few weights has few blocks, which is no fault
SIMULATED: bool = vars(config)["ENABLE_CUDASIM"] > 0
THREADS = 4 if SIMULATED else 128  # the simulator starts an operating-system thread for each, which is slow


def on_device(function: F) -> F:
    """Compile for calls from device code."""
    return cast("F", cuda.jit(device=True)(function))


def launched(function: Callable[..., None]) -> Any:
    """Compile for launches from the host."""
    return cuda.jit(function)


@on_device
def clear(sums: Array) -> None:
    """Set the sums to those of no numbers: count, Σ|g|, Σd, Σd², Σd³, Σd⁴, min, max, with d = g − shift."""
    for i in range(6):
        sums[i] = 0.0
    sums[6], sums[7] = np.inf, -np.inf


@on_device
def add(sums: Array, value: float, shift: float) -> None:
    """Add one number.

    `shift` is one of the numbers that the block reduces. So the central moments lose little to cancellation.
    """
    d = value - shift
    square = d * d
    sums[0] += 1
    sums[1] += abs(value)
    sums[2] += d
    sums[3] += square
    sums[4] += square * d
    sums[5] += square * square
    sums[6] = min(sums[6], value)
    sums[7] = max(sums[7], value)


@on_device
def reduce_block(sums: Array, shift: float, thread: int, row: Array) -> None:
    """Write the accumulator of the numbers of all threads of a block; every thread must call this."""
    rows = cuda.shared.array((8, THREADS), np.float64)
    for i in range(8):
        rows[i, thread] = sums[i]
    cuda.syncthreads()
    step = THREADS // 2
    while step > 0:
        if thread < step:
            for i in range(6):
                rows[i, thread] += rows[i, thread + step]
            rows[6, thread] = min(rows[6, thread], rows[6, thread + step])
            rows[7, thread] = max(rows[7, thread], rows[7, thread + step])
        cuda.syncthreads()
        step //= 2
    if thread == 0:
        settle(rows[:, 0], shift, row)


@on_device
def settle(sums: Array, shift: float, row: Array) -> None:
    """Turn sums of powers about `shift` into an accumulator."""
    n = sums[0]
    mean = sums[2] / n if n > 0 else 0.0
    row[0] = n
    row[1] = sums[1]
    row[2] = shift + mean
    row[3] = max(sums[3] - n * mean * mean, 0.0)
    row[4] = sums[4] - mean * (3 * sums[3] - 2 * n * mean * mean)
    row[5] = sums[5] - mean * (4 * sums[4] - mean * (6 * sums[3] - 3 * n * mean * mean))
    row[6] = sums[6]
    row[7] = sums[7]


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


@launched
def merge_chunks(chunks: Array, each: int, rows: Array, begin: int) -> None:
    """Merge every sample's `each` chunks into row `begin` + sample, with one block per sample."""
    thread, sample = cuda.threadIdx.x, cuda.blockIdx.x
    merged = cuda.shared.array((THREADS, 8), np.float64)
    row = merged[thread]
    for i in range(8):
        row[i] = 0.0
    row[6], row[7] = np.inf, -np.inf
    for chunk in range(thread, each, THREADS):
        merge(row, chunks[sample * each + chunk])
    cuda.syncthreads()
    step = THREADS // 2
    while step > 0:
        if thread < step:
            merge(row, merged[thread + step])
        cuda.syncthreads()
        step //= 2
    if thread == 0:
        for i in range(8):
            rows[begin + sample, i] = row[i]
