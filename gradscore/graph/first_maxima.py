"""δ behind a max pool whose windows lie side by side, handed to the cell of each window that holds its first maximum.

No Indices, which cost runtimes many times the pool itself, and no scattering: the cells of a window are compared.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod

import numpy as np
import onnx_ir as ir

from gradscore.graph.emitter import Emitter, dtype_of
from gradscore.graph.statistic_windows import Window

_MANY = 16  # channels that runtimes convolve side by side


def cells_name(delta: str) -> str:
    """Return under which name the cells of a pooled gradient are in the graph, where something else has needed them."""
    return f"{delta}/cells"


def is_side_by_side(pool: Window, full: Sequence[int], pooled: Sequence[int]) -> bool:
    """Tell whether every window of a pool begins where its neighbour ends, and none reaches beyond the input."""
    if len(full) != len(pool.kernel) or pool.strides != pool.kernel or any(pool.pads) or set(pool.dilations) != {1}:
        return False
    return [size // step for size, step in zip(full, pool.strides, strict=True)] == list(pooled)


def first_maxima(seen: ir.Value, delta: ir.Value, sizes: Sequence[int], pool: Window, emit: Emitter) -> list[ir.Value]:
    """Split δ over the cells of each window: one value [B, M, *pooled] a cell, row-major, of which they are the sum.

    What no earlier cell took is passed on: a cell takes it if none of the later ones is larger, and the last takes the rest.
    `seen` [B, M, *full] went into the pool, and `sizes` are M and *pooled. Cells are compared with one another, never with
    the pool's own output: some devices round what goes through a convolution.
    """
    *cells, last = _cells(seen, sizes, pool, emit)
    later = [last]  # the largest of the cells from each one on, backwards
    for cell in reversed(cells[1:]):
        later.append(emit("Max", cell, later[-1]))
    rest, parts = delta, []
    for cell, others in zip(cells, reversed(later[: len(cells)]), strict=True):
        takes = emit("Cast", emit("GreaterOrEqual", cell, others), to=ir.DataType.from_numpy(dtype_of(delta)))
        parts.append(emit("Mul", rest, takes))  # a tenth of the time of Where
        rest = emit("Sub", rest, parts[-1])
    return [*parts, rest]


def side_by_side(parts: Sequence[ir.Value], emit: Emitter) -> ir.Value:
    """Put the cells one after the other: [B, M, *pooled] each to [B, M, cells, positions]."""
    lying = emit.integers(0, 0, 1, -1)
    return emit("Concat", *(emit("Reshape", part, lying) for part in parts), axis=2)


def interleaved(parts: Sequence[ir.Value], pool: Window, pooled: Sequence[int], emit: Emitter) -> ir.Value:
    """Put the cells of all windows where they are in the pool's input: [B, M, *pooled] each to [B, M, *(pooled · kernel)]."""
    sizes = list(pooled)
    for axis in reversed(range(len(sizes))):  # a copy of short runs, many times faster than a transposition
        apart = emit.integers(0, 0, *sizes[: axis + 1], 1, *sizes[axis + 1 :])
        standing = [emit("Reshape", part, apart) for part in parts]
        count = pool.kernel[axis]
        parts = [emit("Concat", *standing[at : at + count], axis=3 + axis) for at in range(0, len(standing), count)]
        sizes[axis] *= count
    return emit("Reshape", parts[0], emit.integers(0, 0, *sizes))


def _cells(seen: ir.Value, sizes: Sequence[int], pool: Window, emit: Emitter) -> Iterator[ir.Value]:
    """Pick each cell out of all windows: of many channels by convolutions of each with a single 1, of a few by slices."""
    kernel, steps, (channels, *pooled) = pool.kernel, list(pool.strides), sizes
    ends = emit.integers(*(count * step for count, step in zip(pooled, steps, strict=True)))
    for position, cell in enumerate(product(*map(range, kernel))):
        if channels < _MANY:
            axes = emit.integers(*range(2, 2 + len(kernel)))
            yield emit("Slice", seen, emit.integers(*cell), ends, axes, emit.integers(*steps))
        else:
            kernels = np.zeros((channels, 1, prod(kernel)))
            kernels[:, :, position] = 1
            weight = emit.constant(kernels.reshape(channels, 1, *kernel), dtype_of(seen))
            yield emit("Conv", seen, weight, kernel_shape=list(kernel), strides=steps, group=channels)
