"""δ behind a max pool of pairs side by side, handed to the place of each window that holds its first maximum.

A pool of 2 × 2 is one of pairs along the last axis and behind it one of pairs along the other. δ goes back through them in
turn, and of two neighbours the first takes it unless the second is larger: a convolution of every channel by (1, −1) and a
HardSigmoid so steep that it is a step, which runtimes make one node of. No Indices, which cost them many times the pool
itself, and no scattering.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.emitter import Emitter, dtype_of
from gradscore.graph.statistics.unfolding import Window

_STEEP = 3e38


def half_name(delta: str, place: int) -> str:
    """Return under which name a half of a pooled gradient is in the graph, where something else has needed it."""
    return f"{delta}/half/{place}"


def is_of_pairs(pool: Window, full: Sequence[int], pooled: Sequence[int]) -> bool:
    """Tell whether windows of two, along some axes or all, begin where their neighbours end, and none reaches beyond the input."""
    if len(full) != len(pool.kernel) or pool.strides != pool.kernel or any(pool.pads) or set(pool.dilations) != {1}:
        return False
    return max(pool.kernel) == 2 and [size // step for size, step in zip(full, pool.kernel, strict=True)] == list(
        pooled
    )


def halves(seen: ir.Value, delta: ir.Value, sizes: Sequence[int], pool: Window, emit: Emitter) -> list[ir.Value]:
    """Hand δ [B, M, *pooled] to the first maxima, apart for each place of a window along the last axis.

    `seen` [B, M, *full] went into the pool, and `sizes` are M and *full. The halves, of which there is one where the last axis
    is not pooled, are [B, M, *(pooled · kernel), pooled].
    """
    channels, *full = sizes
    counts = [size // step for size, step in zip(full, pool.kernel, strict=True)]
    parts = [delta]
    for axis, extent in enumerate(pool.kernel):
        if axis > 0:
            parts = [interleaved(parts, counts, axis - 1, emit)]
            counts[axis - 1] *= pool.kernel[axis - 1]
        if extent == 2:
            left = [size - count for size, count in zip(full[:axis], counts, strict=False)]
            first = emit("Mul", parts[0], _is_first(seen, channels, pool, axis, left, delta, emit))
            parts = [first, emit("Sub", parts[0], first)]
    return parts


def interleaved(parts: Sequence[ir.Value], sizes: Sequence[int], axis: int, emit: Emitter) -> ir.Value:
    """Put neighbours along an axis beside one another: [B, M, *sizes] each, to [B, M, …, parts · size, …]."""
    if len(parts) == 1:
        return parts[0]
    # A concatenation of short runs, which is many times faster than a transposition.
    apart = emit.integers(0, 0, *sizes[: axis + 1], 1, *sizes[axis + 1 :])
    together = emit("Concat", *(emit("Reshape", part, apart) for part in parts), axis=3 + axis)
    return emit("Reshape", together, emit.integers(0, 0, *sizes[:axis], len(parts) * sizes[axis], *sizes[axis + 1 :]))


def _is_first(
    seen: ir.Value, channels: int, pool: Window, axis: int, left: Sequence[int], like: ir.Value, emit: Emitter
) -> ir.Value:  # fmt: skip
    """Return 1 where the first of two neighbours along an axis is not smaller than the second, 0 elsewhere.

    Later axes are pooled already, of earlier ones the last `left` numbers are not looked at.
    """
    rest = list(pool.kernel[axis + 1 :])
    value = seen if dtype_of(seen) == np.float32 else emit("Cast", seen, to=ir.DataType.FLOAT)
    if max(rest, default=1) > 1:
        window = [1] * (axis + 1) + rest
        value = emit("MaxPool", value, kernel_shape=window, strides=window)
    reach = [1 + unseen for unseen in left] + [2] + [1] * len(rest)
    kernel = np.zeros(reach)
    kernel.flat[0] = 1
    kernel[tuple(int(at == axis) for at in range(len(reach)))] = -1
    difference = emit(
        "Conv", value, emit.constant(np.broadcast_to(kernel, (channels, 1, *reach)), np.float32),
        kernel_shape=reach, strides=[1 + int(at == axis) for at in range(len(reach))], group=channels,
    )  # fmt: skip
    step = emit("HardSigmoid", difference, alpha=_STEEP, beta=1.0)
    return step if dtype_of(like) == np.float32 else emit("Cast", step, to=ir.DataType.from_numpy(dtype_of(like)))
