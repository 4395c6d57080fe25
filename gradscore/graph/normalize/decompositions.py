"""Operators rewritten into the few that the gradient builder differentiates; each docstring shows the algebra.

`RULES` need only ranks, `SHAPED_RULES` run after them on inferred shapes. A rule returns what replaces the node's first
output, or None where it changed the node in place.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from gradscore.errors import UnsupportedOpError
from gradscore.graph.nodes.emitter import Emitter, attribute, dtype_of, extents, replace_output
from gradscore.graph.nodes.probing import BATCH
from gradscore.graph.nodes.requirements import array_of, extent_of, input_of, optional_array, rank_of, refusal
from gradscore.graph.normalize import linear_maps, norms, reductions, windows
from gradscore.graph.normalize.einsum import einsum
from gradscore.graph.normalize.quantization import dequantize
from gradscore.graph.normalize.recurrent import unroll

Rule = Callable[[ir.Node, Emitter], ir.Value | None]


def _see_through(node: ir.Node, emit: Emitter) -> ir.Value | None:  # noqa: ARG001 - rules share a signature
    """Identity(x), Dropout(x) at inference -> x."""
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise UnsupportedOpError(f"node {node.name!r}: the mask of a Dropout is used; export the model in eval mode")
    source, output = node.inputs[0], node.outputs[0]
    keeps = source is None or (output.is_graph_output() and (source.is_graph_input() or source.is_initializer()))
    return None if keeps else source


def _sum(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Sum(a, b, c) = (a + b) + c."""
    total, *others = node.inputs
    for other in others:
        total = emit("Add", total, other)
    return total


def _mean(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Mean(a, b, c) = ((a + b) + c) / 3."""
    return emit("Div", _sum(node, emit), emit.constant(len(node.inputs), dtype_of(node.inputs[0])))


def _reciprocal(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Reciprocal(x) = 1 / x."""
    return emit("Div", emit.constant(1, dtype_of(node.inputs[0])), node.inputs[0])


def _prelu(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """y = relu(x) − slope · relu(−x)."""
    data, slope = node.inputs
    if slope is not None and slope.is_initializer():  # a weight even where it is a single number
        slope = emit.reshaped(slope, tuple(int(extent or 0) for extent in extents(slope) or ()))
    negative = emit("Relu", emit("Neg", data))
    return emit("Sub", emit("Relu", data), emit("Mul", negative, slope))


def _hardmax(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Hardmax(x) = 1 at the first maximum, else 0: a step, without gradient."""
    data, axis = node.inputs[0], attribute(node, "axis", -1)
    rank = rank_of(data, node)
    column = [1] * rank
    column[axis] = -1
    positions = emit.constant(np.arange(extent_of(data, axis, node)).reshape(column), np.int64)
    first = emit("Equal", emit("ArgMax", data, axis=axis, keepdims=1), positions)
    return emit("Where", first, emit.constant(1, dtype_of(data)), emit.constant(0, dtype_of(data)))


def _one_hot(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """OneHot(ids, depth, [off, on]) = Where(ids = 0 … depth − 1, on, off): ids carry no gradient."""
    ids, depth, values = node.inputs
    size = int(array_of(depth, node).reshape(()))
    rank = rank_of(ids, node) + 1
    axis = attribute(node, "axis", -1) % rank
    column = [1] * rank
    column[axis] = -1
    wide = emit("Cast", emit("Unsqueeze", ids, emit.integers(axis)), to=ir.DataType.INT64.value)
    positive = emit("Mod", wide, emit.constant(size, np.int64))  # an id of −1 is the last
    outside = emit(
        "Or",
        emit("Less", wide, emit.constant(-size, np.int64)),
        emit("GreaterOrEqual", wide, emit.constant(size, np.int64)),
    )
    hit = emit("Equal", positive, emit.constant(np.arange(size).reshape(column), np.int64))
    off, on = (emit.constant(number, dtype_of(values)) for number in array_of(values, node))
    return emit("Where", emit("And", hit, emit("Not", outside)), on, off)


def _power(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """x^e = exp(e · log x), where e is more than one number; one number e takes x's type."""
    base, exponent = node.inputs
    constant = optional_array(node, 1) if exponent is not None and exponent.is_initializer() else None
    if constant is None or constant.size > 1:
        return emit("Exp", emit("Mul", exponent, emit("Log", base)))
    if constant.dtype != dtype_of(base):
        node.replace_input_with(1, emit.constant(constant.reshape(()), dtype_of(base)))
    return None


def _where(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Where(c, a, b) with a or b repeated in the open: the builder sums no gradient over the axes of a repetition."""
    whole = node.outputs[0].shape
    for index in (1, 2):
        value = node.inputs[index]
        if value is None or value.shape == whole or (value.const_value is not None and value.const_value.size == 1):
            continue
        sizes = [emit("Shape", item) for item in node.inputs]
        ranks = [rank_of(item, node) for item in node.inputs]
        aligned = [
            emit("Concat", emit.integers(*[1] * (max(ranks) - rank)), size, axis=0) if rank < max(ranks) else size
            for rank, size in zip(ranks, sizes, strict=True)
        ]
        node.replace_input_with(index, emit("Expand", value, emit("Max", *aligned)))
    return None


def _split(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Split of which a part is not used = Slice of each part that is: the builder takes an absent gradient for an empty one."""
    if all(output.uses() or output.is_graph_output() for output in node.outputs):
        return None
    data, axis = node.inputs[0], attribute(node, "axis", 0)
    sizes = optional_array(node, 1)
    if sizes is None:
        whole, parts = extent_of(data, axis, node), len(node.outputs)
        sizes = np.minimum(-(-whole // parts), whole - np.arange(parts) * -(-whole // parts))
    ends = np.cumsum(sizes)
    slices = [
        emit("Slice", data, emit.integers(end - size), emit.integers(end), emit.integers(axis))
        for end, size in zip(ends, sizes, strict=True)
    ]
    for output, part in zip(node.outputs[1:], slices[1:], strict=True):
        replace_output(output, part)
    return slices[0]


def _scatter(node: ir.Node, emit: Emitter) -> ir.Value | None:  # noqa: ARG001 - rules share a signature
    """Scattering that replaces is differentiated; one that adds, multiplies or compares is refused."""
    reduction = attribute(node, "reduction", "none")
    if reduction != "none":
        raise refusal(node, f"has reduction={reduction}, whose gradient has no rule: export the model without it")
    return None


def _compress(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Compress(x, c) along an axis = Gather(x, where c holds), c being constant."""
    axis = attribute(node, "axis", None)
    if axis in (None, 0):
        raise refusal(node, "picks from the flattened batch, which mixes samples: export it with an axis of its own")
    chosen = np.flatnonzero(array_of(node.inputs[1], node))
    return emit("Gather", node.inputs[0], emit.integers(*chosen.tolist()), axis=axis)


def _modulo(node: ir.Node, emit: Emitter) -> ir.Value | None:  # noqa: ARG001 - rules share a signature
    """Mod(x, m) of floating-point numbers has slope 1 in x; a slope in m is wanted only where m is computed or learned."""
    data, divisor = node.inputs
    if data is None or data.dtype is None or not data.dtype.is_floating_point():
        return None
    if divisor is None or divisor.const_value is None or divisor.const_value.size != 1:
        raise refusal(node, "divides by more than one constant number, which has no rule: export the model without it")
    return None


def _cast(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Cast(x), CastLike(x, y) to the type that x has already -> x; CastLike -> Cast."""
    source, output = node.inputs[0], node.outputs[0]
    like = input_of(node, 1)
    target = output.dtype if like is None else like.dtype
    if source is not None and source.dtype is not None and source.dtype == target:
        return source
    return None if like is None or target is None else emit("Cast", source, to=target.value)


def _gemm(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Gemm = β·(α/β · A'·B' + C) in single steps, so that C stands as it was learned; a plain dense layer stays as it is."""
    left, right = node.inputs[:2]
    bias, alpha, beta = input_of(node, 2), attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    if not attribute(node, "transA", 0) and alpha == beta == 1 and (bias is None or len(extents(bias) or ()) == 1):
        return None
    if attribute(node, "transA", 0):
        left = emit("Transpose", left, perm=[1, 0])
    if attribute(node, "transB", 0):
        right = emit.transposed(right)
    bias, beta = (None, 1.0) if bias is None or beta == 0 else (bias, beta)
    product = _times(emit, emit("MatMul", left, right), alpha / beta)
    return product if bias is None else _times(emit, emit("Add", product, bias), beta)


def _times(emit: Emitter, value: ir.Value, factor: float) -> ir.Value:
    return value if factor == 1 else emit("Mul", value, emit.constant(factor, dtype_of(value)))


def _matmul(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """W·X = (Xᵀ·Wᵀ)ᵀ, so that a learned matrix always stands on the right; a learned vector is a matrix of one column."""
    left, right = node.inputs
    if left is None or right is None:
        raise refusal(node, "lacks an operand")
    if rank_of(left, node) == 1 or rank_of(right, node) == 1:
        return _vector_product(node, emit)
    if not left.is_initializer() or right.is_initializer() or rank_of(left, node) != 2:
        return None
    rank = rank_of(right, node)
    if rank < 3:
        return None
    order = [*range(rank - 2), rank - 1, rank - 2]
    product = emit("MatMul", emit("Transpose", right, perm=order), emit.transposed(left))
    return emit("Transpose", product, perm=order)


def _vector_product(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """X·v and v·X with v of one axis = the same with one axis more, then less."""
    left, right = node.inputs
    first, second = rank_of(left, node) == 1, rank_of(right, node) == 1
    if first and right is not None:
        order = [*range(rank_of(right, node) - 2), *range(rank_of(right, node))[:-3:-1]] if not second else [0]
        left, right = emit("Transpose", right, perm=order), left
    known = right is not None and right.is_initializer()
    column = (
        emit.reshaped(right, (-1, 1)) if right is not None and known else emit("Unsqueeze", right, emit.integers(-1))
    )
    return emit("Squeeze", emit("MatMul", left, column), emit.integers(-1))


def _constant_rows(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Gather(weights, ids that are the same for each sample) -> with those ids repeated, so that its gradient is per sample."""
    table, ids = node.inputs[:2]
    is_table = (
        table is not None and table.is_initializer() and table.dtype is not None and table.dtype.is_floating_point()
    )
    if not is_table or ids is None or not ids.shape or len(extents(table) or ()) != 2 or node.graph is None:
        return None
    if str(ids.shape[0]) == BATCH or len(ids.shape) > 2 or attribute(node, "axis", 0) != 0:
        return None
    batch = emit("Shape", node.graph.inputs[0], start=0, end=1)
    size = emit("Concat", batch, emit("Shape", ids, start=-1), axis=0)
    return emit("Gather", table, emit("Expand", ids, size), axis=0)


RULES: dict[str, Rule] = {
    "AveragePool": windows.dilated_average_pool,
    "BatchNormalization": norms.batch_normalization,
    "DepthToSpace": linear_maps.depth_to_space,
    "DequantizeLinear": dequantize,
    "Dropout": _see_through,
    "GlobalLpPool": reductions.global_lp_pool,
    "GlobalMaxPool": reductions.global_max_pool,
    "GroupNormalization": norms.group_normalization,
    "Identity": _see_through,
    "InstanceNormalization": norms.instance_normalization,
    "LRN": norms.local_response_normalization,
    "LayerNormalization": norms.layer_normalization,
    "LpNormalization": norms.lp_normalization,
    "MaxPool": windows.slope_behind_pool,
    "Mean": _mean,
    "Mod": _modulo,
    "MeanVarianceNormalization": norms.mean_variance_normalization,
    "PRelu": _prelu,
    "RMSNormalization": norms.rms_normalization,
    "Reciprocal": _reciprocal,
    "ReduceL1": reductions.reduce_l1,
    "ReduceL2": reductions.reduce_l2,
    "ReduceLogSum": reductions.reduce_log_sum,
    "ReduceMax": reductions.reduce_max,
    "ReduceMin": reductions.reduce_max,
    "ReduceSumSquare": reductions.reduce_sum_square,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "SpaceToDepth": linear_maps.space_to_depth,
    "Sum": _sum,
}

SHAPED_RULES: dict[str, Rule] = {
    "AveragePool": windows.explicit_pads,
    "Cast": _cast,
    "CastLike": _cast,
    "Compress": _compress,
    "Conv": windows.explicit_pads,
    "ConvTranspose": windows.explicit_transposed_pads,
    "CumSum": linear_maps.cum_sum,
    "Einsum": einsum,
    "GRU": unroll,
    "Gather": _constant_rows,
    "Gemm": _gemm,
    "Hardmax": _hardmax,
    "LSTM": unroll,
    "LpPool": windows.lp_pool,
    "MatMul": _matmul,
    "MaxPool": windows.explicit_pads,
    "OneHot": _one_hot,
    "Pad": linear_maps.pad,
    "Pow": _power,
    "RNN": unroll,
    "ReduceProd": reductions.reduce_prod,
    "Resize": linear_maps.resize,
    "Split": _split,
    "Where": _where,
}
