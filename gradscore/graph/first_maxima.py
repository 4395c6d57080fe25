"""δ behind a max pool whose windows lie side by side, handed to the cell of each window that holds its first maximum.

No Indices, which cost runtimes many times the pool itself, and no scattering: the input is compared with the pool's output,
cell by cell.
"""

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from gradscore.graph.emitter import Emitter, attribute, dtype_of
from gradscore.graph.statistic_windows import Window


def cells_name(delta: str) -> str:
    """Return under which name the cells of a pooled gradient are in the graph, where something else has needed them."""
    return f"{delta}/cells"


def is_side_by_side(pool: Window, full: Sequence[int], pooled: Sequence[int]) -> bool:
    """Tell whether every window of a pool begins where its neighbour ends, and none reaches beyond the input."""
    if len(full) != len(pool.kernel) or pool.strides != pool.kernel or any(pool.pads) or set(pool.dilations) != {1}:
        return False
    return [size // step for size, step in zip(full, pool.strides, strict=True)] == list(pooled)


def first_maxima(seen: ir.Value, delta: ir.Value, channels: int, pool: Window, emit: Emitter) -> list[ir.Value]:
    """Split δ over the cells of each window: one value [B, M, *pooled] a cell, row-major, of which they are the sum.

    What no earlier cell took is passed on; the last cell takes the rest. `seen` [B, M, *full] went into the pool.
    """
    largest, rest, parts = _pool_output(seen, pool, emit), delta, []
    for cell in _cells(seen, channels, pool, emit):
        is_largest = emit("Cast", emit("Equal", cell, largest), to=ir.DataType.from_numpy(dtype_of(delta)))
        parts.append(emit("Mul", rest, is_largest))  # a tenth of the time of Where
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


def _pool_output(seen: ir.Value, pool: Window, emit: Emitter) -> ir.Value:
    """Return what the pool made of its input, out of the graph where it is there."""
    for use in seen.uses():
        if use.node.op_type == "MaxPool" and pool == _window_of(use.node):
            return use.node.outputs[0]
    return emit("MaxPool", seen, kernel_shape=list(pool.kernel), strides=list(pool.strides))


def _window_of(node: ir.Node) -> Window | None:
    """Return a pool's window, None where it counts windows or cells in another way."""
    if attribute(node, "ceil_mode", 0) or attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return None
    kernel = attribute(node, "kernel_shape", [])
    ones, none = [1] * len(kernel), [0, 0] * len(kernel)
    defaults = {"strides": ones, "dilations": ones, "pads": none}
    return Window.of({"kernel": kernel, **{name: attribute(node, name, default) for name, default in defaults.items()}})


def _cells(seen: ir.Value, channels: int, pool: Window, emit: Emitter) -> Iterator[ir.Value]:
    """Pick each cell but the last out of all windows, by convolutions of each channel with a single 1."""
    for position in range(prod(pool.kernel) - 1):
        kernels = np.zeros((channels, 1, prod(pool.kernel)), dtype=dtype_of(seen))
        kernels[:, :, position] = 1
        weight = emit.constant(kernels.reshape(channels, 1, *pool.kernel), dtype_of(seen))
        yield emit("Conv", seen, weight, kernel_shape=list(pool.kernel), strides=list(pool.strides), group=channels)
