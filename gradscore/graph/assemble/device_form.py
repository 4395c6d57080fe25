"""Rewrites statistics in standard operators that are faster on CUDA, though slower on a CPU.

The numbers stay the same. Measured on an H100 with onnxruntime-gpu 1.31: cuDNN's reductions to an extremum read 0.2
TB/s, its pools 0.7. Its convolution by kernels with a single 1 writes 0.17 TB/s, Gather 0.5.
"""

from collections.abc import Callable
from math import prod

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.emitter import RULE_KEY, STATISTICS_RULE, Emitter, attribute, extents, replace_node
from gradscore.graph.normalize.dialect import infer_shapes

AT_ONCE_ON_DEVICE = 1 << 22  # as `AT_ONCE`, but larger: each launch of a kernel costs time
_FEW = 256  # of fewer numbers, cuDNN finds the extremum fast enough
_SIDE = 8  # the longest side of a pool's window
_ROW = 1024  # the longest row that a pool reads
_LARGEST_INDEX = 1 << 22  # the largest index for a Gather; beyond it, the convolution stays
_Rewrite = Callable[[ir.Node, Emitter], ir.Value | None]


def arrange_for_device(model: ir.Model) -> None:
    """Rewrite statistics that are slow on a GPU, in place; nodes without fixed sizes stay."""
    infer_shapes(model)
    for node in list(model.graph):
        rewrite = _REWRITES.get(node.op_type) if node.metadata_props.get(RULE_KEY) == STATISTICS_RULE else None
        value = rewrite(node, Emitter(model.graph, "device", node)) if rewrite else None
        if value is not None:
            replace_node(node, value)


def _pooled(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """An extremum over the last axes = max pools, one after the other, then a small ReduceMax."""
    data, axes = node.inputs
    shape, over = extents(data), _array(axes)
    count = _count(shape, over)
    stages = _stages(count)
    if shape is None or over is None or not stages or not attribute(node, "keepdims", 1):
        return None
    is_least = node.op_type == "ReduceMin"
    values: ir.Value | None = emit("Neg", data) if is_least else data
    for rows, width, window in stages:
        laid_out = emit("Reshape", values, emit.integers(-1, 1, rows, width))
        values = emit("MaxPool", laid_out, kernel_shape=window, strides=window)
    left = [*(extent or -1 for extent in shape[: -len(over)]), *[1] * (len(over) - 1), count // _taken(stages)]
    largest = emit("ReduceMax", emit("Reshape", values, emit.integers(*left)), axes, keepdims=1)
    return emit("Neg", largest) if is_least else largest


def _count(shape: tuple[int | None, ...] | None, over: np.ndarray | None) -> int:
    """Return how many numbers the last axes hold, or 0 if the rewrite does not apply.

    It applies if `over` names the last axes, their extents are known, and at most one other extent is unknown.
    """
    if shape is None or over is None or sorted(over % len(shape)) != list(range(len(shape)))[-len(over) :]:
        return 0
    unknown = sum(extent is None for extent in shape[: -len(over)])
    return prod(extent or 0 for extent in shape[-len(over) :]) if unknown <= 1 else 0


def _stages(count: int) -> list[tuple[int, int, list[int]]]:
    """Return the rows, their width, and the window of each pool.

    There are pools until few numbers are left, or no window divides them.
    """
    stages: list[tuple[int, int, list[int]]] = []
    while count >= _FEW:
        width = _divisor(count, _ROW)
        window = [_divisor(count // width, _SIDE), _divisor(width, _SIDE)]
        if prod(window) < _SIDE // 2:
            break
        stages.append((count // width, width, window))
        count //= prod(window)
    return stages


def _taken(stages: list[tuple[int, int, list[int]]]) -> int:
    return prod(prod(window) for *_, window in stages)


def _divisor(number: int, most: int) -> int:
    """Return the largest divisor that is not larger than `most`."""
    return next(divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0)


def _gathered(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """A convolution [N, 1, *in] by kernels with a single 1 = Gather from the padded input."""
    data, kernels = node.inputs[0], _array(node.inputs[1])
    shape, offsets = extents(data), None if kernels is None else _offsets(kernels)
    if (
        kernels is None
        or offsets is None
        or shape is None
        or None in shape[1:]
        or shape[1] != 1
        or len(node.inputs) > 2
    ):
        return None
    spatial, rank = [int(extent or 0) for extent in shape[2:]], len(shape) - 2
    pads, strides = attribute(node, "pads", [0] * 2 * rank), attribute(node, "strides", [1] * rank)
    padded = [size + pads[axis] + pads[rank + axis] for axis, size in enumerate(spatial)]
    axes = zip(padded, kernels.shape[2:], strides, strict=True)
    positions = np.stack(
        np.meshgrid(*(range(0, size - reach + 1, stride) for size, reach, stride in axes), indexing="ij")
    )
    seen = offsets.T.reshape(rank, -1, *[1] * rank) + positions[:, None]
    index = np.ravel_multi_index(tuple(seen), padded)
    if index.size > _LARGEST_INDEX:
        return None
    values = emit("Pad", data, emit.integers(0, 0, *pads[:rank], 0, 0, *pads[rank:])) if any(pads) else data
    laid_out = emit("Reshape", values, emit.integers(-1, prod(padded)))
    return emit("Gather", laid_out, emit.constant(index, np.int32), axis=1)


def _offsets(kernels: np.ndarray) -> np.ndarray | None:
    """Return the place [kernels, axes] of the single 1 in each of [kernels, 1, *extents], else None."""
    places = np.argwhere(kernels)
    is_one_each = np.array_equal(places[:, 0], np.arange(len(kernels))) and bool((kernels[kernels != 0] == 1).all())
    return places[:, 2:] if is_one_each and kernels.shape[1] == 1 else None


def _array(value: ir.Value | None) -> np.ndarray | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


_REWRITES: dict[str, _Rewrite] = {"Conv": _gathered, "ReduceMax": _pooled, "ReduceMin": _pooled}
