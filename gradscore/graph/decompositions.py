"""Operators rewritten into the few that the gradient builder differentiates; each docstring shows the algebra.

`RULES` need only ranks, `SHAPED_RULES` run after them on inferred shapes. A rule returns what replaces the node's first
output, or None where it changed the node in place.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from gradscore.errors import UnsupportedOpError
from gradscore.graph.emitter import Emitter, attribute, dtype_of, extents
from gradscore.graph.recurrent import unroll

Rule = Callable[[ir.Node, Emitter], ir.Value | None]


def _see_through(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Identity(x), Dropout(x) at inference -> x."""
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise UnsupportedOpError(f"node {node.name!r}: the mask of a Dropout is used; export the model in eval mode")
    source, output = node.inputs[0], node.outputs[0]
    keeps = source is None or (output.is_graph_output() and (source.is_graph_input() or source.is_initializer()))
    return None if keeps else source


def _batch_normalization(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """y = (x − μ)/√(σ² + ε) · γ + β, μ and σ² being fixed at inference."""
    data, scale, bias, mean, variance = node.inputs
    rank = _rank(data, node)
    column = (1, -1, *[1] * (rank - 2)) if rank > 2 else (-1,)
    centre, spread = _array(mean, node), _array(variance, node)
    slope = 1 / np.sqrt(spread.astype(np.float64) + attribute(node, "epsilon", 1e-5))
    kind = dtype_of(data)
    centred = emit("Sub", data, emit.constant(centre.reshape(column), kind))
    normalised = emit("Mul", centred, emit.constant(slope.reshape(column), kind))
    return _affine(emit, normalised, scale, bias, column[1:] if rank > 2 else column)


def _layer_normalization(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """y = LayerNormalization(x, 1) · γ + β."""
    data, scale = node.inputs[:2]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    shape = extents(scale)
    if shape is None or None in shape or any(output.uses() for output in node.outputs[1:]):
        raise UnsupportedOpError(f"node {node.name!r} (LayerNormalization) has a scale of unknown shape, or its mean is used")
    sizes = [int(extent or 0) for extent in shape]
    ones, zeros = (emit.constant(np.full(sizes, number), dtype_of(data)) for number in (1, 0))
    axis, epsilon = attribute(node, "axis", -1), attribute(node, "epsilon", 1e-5)
    normalised = emit.emit("LayerNormalization", (data, ones, zeros), 3, {"axis": axis, "epsilon": epsilon})[0]
    return _affine(emit, normalised, scale, bias, None)


def _instance_normalization(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """y = (x − mean)/√(var + ε) · γ + β over the positions of each channel."""
    data, scale, bias = node.inputs
    rank = _rank(data, node)
    normalised = _standardised(emit, data, list(range(2, rank)), attribute(node, "epsilon", 1e-5))
    return _affine(emit, normalised, scale, bias, (-1, *[1] * (rank - 2)))


def _group_normalization(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """y = (x − mean)/√(var + ε) · γ + β over each group's channels and positions; γ and β one a group in this opset."""
    data, scale, bias = node.inputs
    shape, groups = extents(data), attribute(node, "num_groups", 1)
    if shape is None or shape[1] is None:
        raise UnsupportedOpError(f"node {node.name!r} (GroupNormalization) has an unknown number of channels")
    grouped = emit("Reshape", data, emit.integers(0, groups, -1))
    normalised = _standardised(emit, grouped, [2], attribute(node, "epsilon", 1e-5))
    scaled = _affine(emit, normalised, scale, bias, (-1, 1))
    return emit("Reshape", scaled, emit("Shape", data))


def _standardised(emit: Emitter, data: ir.Value | None, axes: list[int], epsilon: float) -> ir.Value:
    centred = emit("Sub", data, emit("ReduceMean", data, emit.integers(*axes), keepdims=1))
    variance = emit("ReduceMean", emit("Mul", centred, centred), emit.integers(*axes), keepdims=1)
    return emit("Div", centred, emit("Sqrt", emit("Add", variance, emit.constant(epsilon, dtype_of(data)))))


def _affine(
    emit: Emitter, data: ir.Value, scale: ir.Value | None, bias: ir.Value | None, column: tuple[int, ...] | None
) -> ir.Value:
    """data · γ + β, each left out where it is neutral throughout, as exporters write a norm layer that learns none."""
    if scale is not None and not _is(scale, 1):
        data = emit("Mul", data, emit.reshaped(scale, column))
    if bias is not None and not _is(bias, 0):
        data = emit("Add", data, emit.reshaped(bias, column))
    return data


def _is(value: ir.Value, number: float) -> bool:
    tensor = value.const_value
    return tensor is not None and bool(np.all(tensor.numpy() == number))


def _prelu(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """y = relu(x) − slope · relu(−x)."""
    data, slope = node.inputs
    negative = emit("Relu", emit("Neg", data))
    return emit("Sub", emit("Relu", data), emit("Mul", negative, slope))


def _global_max_pool(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """GlobalMaxPool(x) = MaxPool(x) with a window of x's size."""
    shape = extents(node.inputs[0])
    if shape is None or None in shape[2:]:
        raise UnsupportedOpError(f"node {node.name!r} (GlobalMaxPool) needs an input of fixed size: export it so")
    return emit("MaxPool", node.inputs[0], kernel_shape=[int(extent or 0) for extent in shape[2:]])


def _reduce_max(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """ReduceMax(x) = Σ x·m / Σ m with m = (x = max x): the gradient is shared among equal maxima, as torch.amax does."""
    data, axes = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    if data is None or data.dtype is None or not data.dtype.is_floating_point():
        return None
    kind = {"keepdims": 1, "noop_with_empty_axes": attribute(node, "noop_with_empty_axes", 0)}
    largest = emit(node.op_type, data, axes, **kind)
    mask = emit("CastLike", emit("Equal", data, largest), data)
    share = emit("Div", mask, emit("ReduceSum", mask, axes, **kind))
    chosen = emit("Where", emit("Equal", data, largest), data, emit.constant(0, dtype_of(data)))
    return emit("ReduceSum", emit("Mul", chosen, share), axes, **{**kind, "keepdims": attribute(node, "keepdims", 1)})


def _sum(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Sum(a, b, c) = (a + b) + c."""
    total, *others = node.inputs
    for other in others:
        total = emit("Add", total, other)
    return total


def _mean(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Mean(a, b, c) = ((a + b) + c) / 3."""
    return emit("Div", _sum(node, emit), emit.constant(len(node.inputs), dtype_of(node.inputs[0])))


def _same_cast(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Cast(x), CastLike(x, y) to the type that x has already -> x."""
    source, output = node.inputs[0], node.outputs[0]
    target = node.inputs[1].dtype if len(node.inputs) > 1 and node.inputs[1] is not None else output.dtype
    return source if source is not None and source.dtype is not None and source.dtype == target else None


def _reciprocal(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Reciprocal(x) = 1 / x."""
    return emit("Div", emit.constant(1, dtype_of(node.inputs[0])), node.inputs[0])


def _reduce_sum_square(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """ReduceSumSquare(x) = ReduceSum(x·x)."""
    data, axes = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    return emit("ReduceSum", emit("Mul", data, data), axes, **_reduction(node))


def _reduce_l1(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """ReduceL1(x) = ReduceSum(|x|)."""
    data, axes = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    return emit("ReduceSum", emit("Abs", data), axes, **_reduction(node))


def _reduce_l2(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """ReduceL2(x) = √ReduceSum(x·x)."""
    return emit("Sqrt", _reduce_sum_square(node, emit))


def _reduction(node: ir.Node) -> dict[str, int]:
    return {name: attribute(node, name, default) for name, default in (("keepdims", 1), ("noop_with_empty_axes", 0))}


def _lrn(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """LRN(x) = x / (bias + alpha · mean of x² over `size` channels)^beta; the mean as a padded average pool."""
    data, size = node.inputs[0], attribute(node, "size", 1)
    kind = dtype_of(data)
    square = emit("Reshape", emit("Mul", data, data), emit.integers(0, 1, _channels(data, node), -1))
    before = (size - 1) // 2
    mean = emit(
        "AveragePool", square, kernel_shape=[size, 1], pads=[before, 0, size - 1 - before, 0], count_include_pad=1
    )  # fmt: skip
    scaled = emit("Mul", emit("Reshape", mean, emit("Shape", data)), emit.constant(attribute(node, "alpha", 1e-4), kind))
    base = emit("Add", scaled, emit.constant(attribute(node, "bias", 1.0), kind))
    return emit("Div", data, emit("Pow", base, emit.constant(attribute(node, "beta", 0.75), kind)))


def _depth_to_space(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """DepthToSpace = Reshape, Transpose, Reshape."""
    channels, block = _channels(node.inputs[0], node), attribute(node, "blocksize", 1)
    height, width = _spatial(node.inputs[0], node)
    depth = channels // block**2
    if attribute(node, "mode", "DCR") == "DCR":
        split, order = (block, block, depth), [0, 3, 4, 1, 5, 2]
    else:
        split, order = (depth, block, block), [0, 1, 4, 2, 5, 3]
    tall = emit("Reshape", node.inputs[0], emit.integers(0, *split, height, width))
    return emit("Reshape", emit("Transpose", tall, perm=order), emit.integers(0, depth, height * block, width * block))


def _space_to_depth(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """SpaceToDepth = Reshape, Transpose, Reshape."""
    channels, block = _channels(node.inputs[0], node), attribute(node, "blocksize", 1)
    height, width = (extent // block for extent in _spatial(node.inputs[0], node))
    tall = emit("Reshape", node.inputs[0], emit.integers(0, channels, height, block, width, block))
    moved = emit("Transpose", tall, perm=[0, 3, 5, 1, 2, 4])
    return emit("Reshape", moved, emit.integers(0, channels * block**2, height, width))


def _cum_sum(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """CumSum(x) along an axis = x times a triangle of ones, the axis brought last."""
    data, axis_value = node.inputs
    shape, axis = extents(data), int(_array(axis_value, node).reshape(()))
    if shape is None or shape[axis] is None:
        raise UnsupportedOpError(f"node {node.name!r} (CumSum) runs along an axis of unknown length: export it with fixed sizes")
    length, rank = int(shape[axis] or 0), len(shape)
    triangle = np.triu(np.ones((length, length)), k=attribute(node, "exclusive", 0))
    if attribute(node, "reverse", 0):
        triangle = triangle.T
    order = [position for position in range(rank) if position != axis % rank] + [axis % rank]
    moved = emit("Transpose", data, perm=order)
    summed = emit("MatMul", moved, emit.constant(triangle, dtype_of(data)))
    return emit("Transpose", summed, perm=[int(position) for position in np.argsort(order)])


def _gemm(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Gemm = alpha · A'·B' + beta · C; a learned B is turned to stand as [n, m], which changes no statistic."""
    left, right = node.inputs[:2]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if attribute(node, "transA", 0):
        left = emit("Transpose", left, perm=[1, 0])
    if attribute(node, "transB", 0):
        right = emit.transposed(right)
    product = emit("MatMul", left, right)
    kind = dtype_of(left)
    if attribute(node, "alpha", 1.0) != 1:
        product = emit("Mul", product, emit.constant(attribute(node, "alpha", 1.0), kind))
    if bias is None:
        return product
    if attribute(node, "beta", 1.0) != 1:
        bias = emit("Mul", bias, emit.constant(attribute(node, "beta", 1.0), kind))
    return emit("Add", product, bias)


def _weight_first_matmul(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """W·X = (Xᵀ·Wᵀ)ᵀ, so that a learned weight always stands on the right."""
    left, right = node.inputs
    shape = extents(right)
    if left is None or not left.is_initializer() or right is None or right.is_initializer() or shape is None or len(shape) < 3:
        return None
    order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    product = emit("MatMul", emit("Transpose", right, perm=order), emit.transposed(left))
    return emit("Transpose", product, perm=order)


def _transpose_of_weight(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Transpose of an initializer of two dimensions -> the turned initializer."""
    value = node.inputs[0]
    if value is None or not value.is_initializer() or len(extents(value) or ()) != 2 or attribute(node, "perm", [1, 0]) != [1, 0]:
        return None
    return emit.transposed(value)


def _dequantized_weight(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """DequantizeLinear(initializer) -> the weight in floating point."""
    value, scale = node.inputs[:2]
    if value is None or not value.is_initializer() or scale is None or not scale.is_initializer():
        return None
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    integers, factors = _array(value, node).astype(np.float32), _array(scale, node).astype(np.float32)
    offset = np.zeros_like(factors) if zero is None else _array(zero, node).astype(np.float32)
    if factors.ndim == 1 and factors.size > 1:
        column = [1] * integers.ndim
        column[attribute(node, "axis", 1)] = -1
        factors, offset = factors.reshape(column), offset.reshape(column)
    return emit.weight((integers - offset) * factors, str(value.name), "dequantized")


def _constant_rows(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Gather(weights, constant ids) -> the same for each sample, so that its gradient is per sample too."""
    table, ids = node.inputs[:2]
    is_table = table is not None and table.is_initializer() and table.dtype is not None and table.dtype.is_floating_point()
    rows = extents(ids)
    if not is_table or ids is None or not ids.is_initializer() or len(extents(table) or ()) != 2 or not rows or node.graph is None:
        return None
    batch = emit("Shape", node.graph.inputs[0], start=0, end=1)
    size = emit("Concat", batch, emit.integers(*(int(extent or 0) for extent in rows[-1:])), axis=0)
    return emit("Gather", table, emit("Expand", ids, size), axis=0)


def _explicit_pads(node: ir.Node, emit: Emitter) -> None:
    """auto_pad=SAME_UPPER|SAME_LOWER|VALID -> pads, from the input's static extents; kernel_shape from the weight."""
    if attribute(node, "kernel_shape", None) is None:
        weight = extents(node.inputs[1])
        if weight is None or None in weight:
            raise UnsupportedOpError(f"node {node.name!r} ({node.op_type}) has a kernel of unknown size")
        node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", [int(extent or 0) for extent in weight[2:]])
    auto_pad = attribute(node, "auto_pad", "NOTSET")
    if auto_pad == "NOTSET":
        return
    kernel = attribute(node, "kernel_shape", [])
    rank = len(kernel)
    strides, dilations = attribute(node, "strides", [1] * rank), attribute(node, "dilations", [1] * rank)
    pads = [0] * (2 * rank)
    for axis, size in enumerate(_spatial(node.inputs[0], node) if auto_pad != "VALID" else ()):
        total = max(0, (-(-size // strides[axis]) - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1 - size)
        small, large = total // 2, total - total // 2
        pads[axis], pads[axis + rank] = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
    del node.attributes["auto_pad"]
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)


def _explicit_transposed_pads(node: ir.Node, emit: Emitter) -> None:
    """ConvTranspose with auto_pad or output_shape -> with pads and output_padding."""
    _explicit_kernel = attribute(node, "auto_pad", "NOTSET") == "NOTSET" and attribute(node, "output_shape", None) is None
    if not _explicit_kernel:
        raise UnsupportedOpError(
            f"node {node.name!r} (ConvTranspose) has auto_pad or output_shape: export it with explicit pads and output_padding"
        )
    _explicit_pads(node, emit)


def _rank(value: ir.Value | None, node: ir.Node) -> int:
    shape = extents(value)
    if shape is None:
        raise UnsupportedOpError(f"node {node.name!r} ({node.op_type}) has an input of unknown rank: export it with known shapes")
    return len(shape)


def _channels(value: ir.Value | None, node: ir.Node) -> int:
    shape = extents(value)
    if shape is None or shape[1] is None:
        raise UnsupportedOpError(f"node {node.name!r} ({node.op_type}) has an unknown number of channels: export it with fixed sizes")
    return shape[1]


def _spatial(value: ir.Value | None, node: ir.Node) -> list[int]:
    shape = extents(value)
    if shape is None or None in shape[2:]:
        raise UnsupportedOpError(f"node {node.name!r} ({node.op_type}) needs an input of fixed size: export the model so")
    return [int(extent or 0) for extent in shape[2:]]


def _array(value: ir.Value | None, node: ir.Node) -> np.ndarray:
    if value is None or value.const_value is None:
        raise UnsupportedOpError(f"node {node.name!r} ({node.op_type}) computes what must be a constant: export it in eval mode")
    return value.const_value.numpy()


RULES: dict[str, Rule] = {
    "BatchNormalization": _batch_normalization,
    "CumSum": _cum_sum,
    "DepthToSpace": _depth_to_space,
    "DequantizeLinear": _dequantized_weight,
    "Dropout": _see_through,
    "GlobalMaxPool": _global_max_pool,
    "GroupNormalization": _group_normalization,
    "Identity": _see_through,
    "InstanceNormalization": _instance_normalization,
    "LRN": _lrn,
    "LayerNormalization": _layer_normalization,
    "Mean": _mean,
    "PRelu": _prelu,
    "Reciprocal": _reciprocal,
    "ReduceL1": _reduce_l1,
    "ReduceL2": _reduce_l2,
    "ReduceMax": _reduce_max,
    "ReduceMin": _reduce_max,
    "ReduceSumSquare": _reduce_sum_square,
    "SpaceToDepth": _space_to_depth,
    "Sum": _sum,
}

SHAPED_RULES: dict[str, Rule] = {
    "Cast": _same_cast,
    "CastLike": _same_cast,
    "GRU": unroll,
    "Gather": _constant_rows,
    "LSTM": unroll,
    "RNN": unroll,
    "AveragePool": _explicit_pads,
    "Conv": _explicit_pads,
    "ConvTranspose": _explicit_transposed_pads,
    "Gemm": _gemm,
    "MatMul": _weight_first_matmul,
    "MaxPool": _explicit_pads,
    "Transpose": _transpose_of_weight,
}
