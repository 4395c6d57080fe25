"""Unpools δ behind a max pool of pairs, to the first maximum of each window.

A 2 × 2 pool is a pool of pairs along the last axis, followed by a pool of pairs along the other. δ goes back through
both in turn. Of two neighbours, the first gets δ unless the second is larger. This test is a convolution of every
channel by (1, −1), then a HardSigmoid so steep that it is a step; runtimes fuse the two. So neither Indices, which cost
many times the pool itself, nor a scatter are needed.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.emitter import Emitter, dtype_of
from gradscore.graph.statistics.unfolding import Window

_STEEP = 3e38
_HALVES = "gradscore.halves"


def keep_halves(delta: ir.Value, parts: Sequence[ir.Value]) -> None:
    """Note what `halves` has made of δ behind a pool, for others that need the same."""
    delta.meta[_HALVES] = tuple(parts)


def kept_halves(delta: ir.Value) -> tuple[ir.Value, ...]:
    """Return the halves that `keep_halves` has noted; nothing where there are none."""
    noted: tuple[ir.Value, ...] = delta.meta.get(_HALVES, ())
    return noted


def is_of_pairs(pool: Window, full: Sequence[int], pooled: Sequence[int]) -> bool:
    """Tell whether a pool's windows are pairs along some axes, without overlap, gaps or padding."""
    if len(full) != len(pool.kernel) or pool.strides != pool.kernel or any(pool.pads) or set(pool.dilations) != {1}:
        return False
    return max(pool.kernel) == 2 and [size // step for size, step in zip(full, pool.kernel, strict=True)] == list(
        pooled
    )


def halves(seen: ir.Value, delta: ir.Value, sizes: Sequence[int], pool: Window, emit: Emitter) -> list[ir.Value]:
    """Unpool δ [B, M, *pooled] to the first maxima; one part per place along the last axis.

    `seen` [B, M, *full] is the pool's input; `sizes` are M and *full. Each part is [B, M, *(pooled · kernel), pooled]. If
    the last axis is not pooled, there is one part.
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
    """Interleave parts along an axis: [B, M, *sizes] each, to [B, M, …, parts · size, …]."""
    if len(parts) == 1:
        return parts[0]
    # Concatenating short runs is many times faster than transposing.
    apart = emit.integers(0, 0, *sizes[: axis + 1], 1, *sizes[axis + 1 :])
    together = emit("Concat", *(emit("Reshape", part, apart) for part in parts), axis=3 + axis)
    return emit("Reshape", together, emit.integers(0, 0, *sizes[:axis], len(parts) * sizes[axis], *sizes[axis + 1 :]))


def _is_first(
    seen: ir.Value, channels: int, pool: Window, axis: int, left: Sequence[int], like: ir.Value, emit: Emitter
) -> ir.Value:  # fmt: skip
    """Return 1 where the first of two neighbours along an axis is not smaller, else 0.

    Later axes are pooled first. Of earlier axes, the last `left` numbers are ignored.
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
