"""Reductions that the gradient builder does not differentiate, by those that it does; each docstring shows the algebra."""

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.emitter import Emitter, attribute, dtype_of, extents
from gradscore.graph.nodes.requirements import extent_of, input_of, optional_array, rank_of


def global_max_pool(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """GlobalMaxPool(x) = MaxPool(x) with a window of x's size; of x's free size, the maximum over its positions."""
    data, shape = node.inputs[0], extents(node.inputs[0])
    if shape is not None and None not in shape[2:]:
        return emit("MaxPool", data, kernel_shape=[int(extent or 0) for extent in shape[2:]])
    return _shared_extremum(emit, "ReduceMax", data, emit.integers(*range(2, rank_of(data, node))), {"keepdims": 1})


def reduce_max(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """ReduceMax(x) and ReduceMin(x) of floating-point numbers, by the extremum's own positions."""
    data = node.inputs[0]
    if data is None or data.dtype is None or not data.dtype.is_floating_point():
        return None
    return _shared_extremum(emit, node.op_type, data, input_of(node, 1), _reduction(node))


def _shared_extremum(
    emit: Emitter, op_type: str, data: ir.Value | None, axes: ir.Value | None, options: dict[str, int]
) -> ir.Value:
    """max x = Σ x·m / Σ m with m = (x = max x): the gradient is shared among equal maxima, as torch.amax does."""
    kept, kind = {**options, "keepdims": 1}, dtype_of(data)
    one, zero = emit.constant(1, kind), emit.constant(0, kind)
    extreme = emit("Equal", data, emit(op_type, data, axes, **kept))
    mask = emit("Where", extreme, one, zero)
    share = emit("Div", mask, emit("ReduceSum", mask, axes, **kept))
    return emit("ReduceSum", emit("Mul", emit("Where", extreme, data, zero), share), axes, **options)


def reduce_sum_square(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """ReduceSumSquare(x) = ReduceSum(x·x)."""
    data = node.inputs[0]
    return emit("ReduceSum", emit("Mul", data, data), input_of(node, 1), **_reduction(node))


def reduce_l1(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """ReduceL1(x) = ReduceSum(|x|)."""
    return emit("ReduceSum", emit("Abs", node.inputs[0]), input_of(node, 1), **_reduction(node))


def reduce_l2(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """ReduceL2(x) = √ReduceSum(x·x)."""
    return emit("Sqrt", reduce_sum_square(node, emit))


def reduce_log_sum(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """ReduceLogSum(x) = log ReduceSum(x)."""
    return emit("Log", emit("ReduceSum", node.inputs[0], input_of(node, 1), **_reduction(node)))


def reduce_prod(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """ReduceProd(x) = the product of x's halves, then of that one's halves, …: exact where factors are 0."""
    data, rank = node.inputs[0], rank_of(node.inputs[0], node)
    if data is None or data.dtype is None or not data.dtype.is_floating_point():
        return None
    given = optional_array(node, 1)
    if given is None and attribute(node, "noop_with_empty_axes", 0):
        return data
    axes = [int(axis) % rank for axis in (range(rank) if given is None else given)]
    product = data
    for axis in axes:
        product = _product_along(emit, product, axis, extent_of(data, axis, node))
    return product if attribute(node, "keepdims", 1) else emit("Squeeze", product, emit.integers(*axes))


def _product_along(emit: Emitter, data: ir.Value, axis: int, extent: int) -> ir.Value:
    while extent > 1:
        half, odd = divmod(extent, 2)
        sizes = [half, half, *[1] * odd]
        parts = emit.emit("Split", (data, emit.integers(*sizes)), len(sizes), {"axis": axis})
        data = emit("Mul", *parts[:2])
        data = emit("Concat", data, parts[2], axis=axis) if odd else data
        extent = half + odd
    return data


def global_lp_pool(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """GlobalLpPool(x) = ‖x‖ₚ over the positions."""
    data, order = node.inputs[0], attribute(node, "p", 2)
    positions = emit.integers(*range(2, rank_of(data, node)))
    return root_of(emit, emit("ReduceSum", power_of(emit, data, order), positions, keepdims=1), order)


def power_of(emit: Emitter, data: ir.Value | None, order: int) -> ir.Value:
    """|x|ᵖ for a whole number p."""
    if order == 2:
        return emit("Mul", data, data)
    size = emit("Abs", data)
    return size if order == 1 else emit("Pow", size, emit.constant(order, dtype_of(data)))


def root_of(emit: Emitter, total: ir.Value, order: int) -> ir.Value:
    """The p-th root of a sum of powers; at 0, where it has no slope, the gradient is 0 and not infinite."""
    if order == 1:
        return total
    zero, one = emit.constant(0, np.float32), emit.constant(1, np.float32)
    positive = emit("Greater", total, zero)
    root = emit("Pow", emit("Where", positive, total, one), emit.constant(1 / order, np.float32))
    return emit("Where", positive, root, zero)


def _reduction(node: ir.Node) -> dict[str, int]:
    return {name: attribute(node, name, default) for name, default in (("keepdims", 1), ("noop_with_empty_axes", 0))}
