"""What CUDA's kernels are slow at, said in other standard operators: the same numbers in less time there, in more on a CPU.

Measured on an H100 with onnxruntime-gpu 1.31: cuDNN's reductions to an extremum read 0.2 TB/s where its pools read 0.7; its
convolution by kernels with a single 1 writes 0.17 TB/s where Gather writes 0.5.
"""

from collections.abc import Callable
from math import prod

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.emitter import RULE_KEY, STATISTICS, Emitter, attribute, extents, replace_node
from gradscore.graph.normalize.dialect import infer_shapes

AT_ONCE_ON_DEVICE = 1 << 22  # numbers of a sample's gradient that stand in memory for a whole batch: launches cost
_FEW = 256  # numbers of which cuDNN finds the extremum soon enough
_SIDE = 8  # of a pool's window at most
_ROW = 1024  # the longest row that a pool's windows go along
_LARGEST_INDEX = 1 << 22  # where Gather would read more than that to know what to read, the convolution stays
_Rewrite = Callable[[ir.Node, Emitter], ir.Value | None]


def arrange_for_device(model: ir.Model) -> None:
    """Rewrite what of the statistics a GPU is slow at, in place; whatever has no fixed size stays as it is."""
    infer_shapes(model)
    for node in list(model.graph):
        rewrite = _REWRITES.get(node.op_type) if node.metadata_props.get(RULE_KEY) == STATISTICS else None
        value = rewrite(node, Emitter(model.graph, "device", node)) if rewrite else None
        if value is not None:
            replace_node(node, value)


def _pooled(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """An extremum over the last axes: that of pools' extrema, laid out as rows anew for each pool."""
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
    """Return how many numbers the last axes have, 0 where others are meant or one of them, or two more, are not known."""
    if shape is None or over is None or sorted(over % len(shape)) != list(range(len(shape)))[-len(over) :]:
        return 0
    unknown = sum(extent is None for extent in shape[: -len(over)])
    return prod(extent or 0 for extent in shape[-len(over) :]) if unknown <= 1 else 0


def _stages(count: int) -> list[tuple[int, int, list[int]]]:
    """Return for each pool the rows, their width, and its window, until few numbers are left or none divides them."""
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
    """A convolution [N, 1, *in] by kernels with a single 1: each output is one input, or one of the pads' zeros."""
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
    """Return where the only number of each of [kernels, 1, *extents], a 1, stands: [kernels, axes]."""
    places = np.argwhere(kernels)
    is_one_each = np.array_equal(places[:, 0], np.arange(len(kernels))) and bool((kernels[kernels != 0] == 1).all())
    return places[:, 2:] if is_one_each and kernels.shape[1] == 1 else None


def _array(value: ir.Value | None) -> np.ndarray | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


_REWRITES: dict[str, _Rewrite] = {"Conv": _gathered, "ReduceMax": _pooled, "ReduceMin": _pooled}
