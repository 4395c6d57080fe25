"""Pass 5: training-only operators into standard ONNX.

Requires: a differentiated graph with inferred shapes. Ensures: every node is of the default domain and known to the
standard, so the model runs in any runtime.
"""

import numpy as np
import onnx
import onnx_ir as ir

from gradscore.errors import UnsupportedOpError
from gradscore.graph.lower.activation_gradients import (
    LayerNormalizationGradRule,
    LeakyReluGradRule,
    LogSoftmaxGradRule,
    ReluGradRule,
    SigmoidGradRule,
    SoftmaxGradRule,
    TanhGradRule,
)
from gradscore.graph.lower.lowering_rule import LoweringRule, scalar
from gradscore.graph.lower.window_gradients import (
    AveragePoolGradRule,
    ConvGradRule,
    ConvTransposeGradRule,
    MaxPoolGradRule,
)
from gradscore.graph.nodes.emitter import Emitter, attribute, extents, replace_node, replace_output
from gradscore.graph.normalize.dialect import OPSET


class DivGradRule(LoweringRule):
    """dA = dY / B and dB = −dY · A / B², each summed over the axes along which it was repeated."""

    op_type = "DivGrad"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, dividend, divisor = node.inputs
        share = emit("Div", gradient, divisor)
        if node.outputs[1].uses() or node.outputs[1].is_graph_output() if len(node.outputs) > 1 else False:
            slope = emit("Neg", emit("Mul", share, emit("Div", dividend, divisor)))
            replace_output(node.outputs[1], _summed_like(emit, slope, gradient, self._shaped(node.outputs[1], divisor)))
        return _summed_like(emit, share, gradient, self._shaped(node.outputs[0], dividend))

    @staticmethod
    def _shaped(output: ir.Value, operand: ir.Value | None) -> ir.Value | None:
        """The shape asked for; a parameter's gradient may be wanted before it is summed to the parameter's own."""
        return output if output.shape is not None else operand


class IndexedGradRule(LoweringRule):
    """dX = dY added up at the positions that the forward operator read; it reads a table of positions to tell them."""

    def __init__(self, op_type: str, forward: str, gradient: int, shape: int, rest: tuple[int, ...]) -> None:
        self.op_type = op_type
        self._forward = forward
        self._gradient, self._shape, self._rest = gradient, shape, rest

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, shape = node.inputs[self._gradient], node.inputs[self._shape]
        rest = [node.inputs[position] for position in self._rest if position < len(node.inputs)]
        attributes = {name: item.value for name, item in node.attributes.items() if name in ("axis", "batch_dims")}
        first, flat = emit.integers(0), emit.integers(-1)
        size = emit("ReduceProd", shape, first, keepdims=1)
        count = emit("Squeeze", size, first)
        table = emit("Reshape", emit("Range", emit.constant(0, np.int64), count, emit.constant(1, np.int64)), shape)
        positions = emit("Reshape", emit(self._forward, table, *rest, **attributes), flat)
        zeros = emit("Expand", scalar(emit, 0, gradient), size)
        added = emit("ScatterElements", zeros, positions, emit("Reshape", gradient, flat), axis=0, reduction="add")
        return emit("Reshape", added, shape)


class BroadcastGradientArgsRule(LoweringRule):
    """The axes along which each of two shapes was repeated to meet the other, as a 1-D tensor."""

    op_type = "BroadcastGradientArgs"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        first, second = node.inputs
        if len(node.outputs) > 1 and node.outputs[1].uses():
            replace_output(node.outputs[1], self._axes(emit, second, first))
        return self._axes(emit, first, second)

    @staticmethod
    def _axes(emit: Emitter, own: ir.Value | None, other: ir.Value | None) -> ir.Value:
        zero, one = emit.constant(0, np.int64), emit.integers(1)
        sizes = [emit("Shape", shape) for shape in (own, other)]
        rank = emit("Max", *sizes)
        padded = []
        for shape, size in zip((own, other), sizes, strict=True):
            ones = emit("Expand", one, emit("Sub", rank, size))
            padded.append(emit("Concat", ones, shape, axis=0))
        differs = emit("Not", emit("Equal", *padded))
        repeated = emit("And", emit("Equal", padded[0], emit("Squeeze", one, emit.integers(0))), differs)
        missing = emit(
            "Less",
            emit("Range", zero, emit("Squeeze", rank, emit.integers(0)), emit.constant(1, np.int64)),
            emit("Sub", rank, sizes[0]),
        )
        return emit("Squeeze", emit("NonZero", emit("Or", repeated, missing)), emit.integers(0))


class ReduceSumTrainingRule(LoweringRule):
    """ReduceSumTraining(x, axes) = ReduceSum(x, axes)."""

    op_type = "ReduceSumTraining"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        noop = attribute(node, "noop_with_empty_axes", 0)
        return emit("ReduceSum", *node.inputs, keepdims=attribute(node, "keepdims", 1), noop_with_empty_axes=noop)


class TriluRule(LoweringRule):
    """Trilu of the builder's own domain = the standard one."""

    op_type = "Trilu"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        return emit("Trilu", *node.inputs, upper=attribute(node, "upper", 1))


class ScaleRule(LoweringRule):
    """Scale(x, s) = x / s or x · s, s of any numeric type."""

    op_type = "Scale"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        data, scale = node.inputs
        factor = emit("CastLike", scale, data)
        return emit("Div" if attribute(node, "scale_down", 0) else "Mul", data, factor)


class FusedMatMulRule(LoweringRule):
    """FusedMatMul(A, B) = alpha · A'·B', each transposed in its last two dimensions on request."""

    op_type = "FusedMatMul"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        if attribute(node, "transBatchA", 0) or attribute(node, "transBatchB", 0):
            raise UnsupportedOpError(
                f"node {node.name!r} (FusedMatMul) transposes its batch dimensions, which is not lowered"
            )
        left, right = (
            self._transposed(value, attribute(node, flag, 0), emit, node)
            for value, flag in zip(node.inputs, ("transA", "transB"), strict=True)
        )
        product = emit("MatMul", left, right)
        alpha = attribute(node, "alpha", 1.0)
        return product if alpha == 1 else emit("Mul", product, scalar(emit, alpha, product))

    @staticmethod
    def _transposed(value: ir.Value | None, flag: int, emit: Emitter, node: ir.Node) -> ir.Value | None:
        if not flag:
            return value
        shape = extents(value)
        if shape is None:
            raise UnsupportedOpError(f"node {node.name!r} (FusedMatMul) transposes a value of unknown rank")
        rank = len(shape)
        return emit("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2])


RULES: dict[str, LoweringRule] = {
    rule.op_type: rule
    for rule in (
        AveragePoolGradRule(),
        BroadcastGradientArgsRule(),
        ConvGradRule(),
        ConvTransposeGradRule(),
        DivGradRule(),
        FusedMatMulRule(),
        IndexedGradRule("GatherElementsGrad", "GatherElements", gradient=0, shape=1, rest=(2,)),
        IndexedGradRule("GatherGrad", "Gather", gradient=2, shape=0, rest=(1,)),
        IndexedGradRule("GatherNDGrad", "GatherND", gradient=2, shape=0, rest=(1,)),
        IndexedGradRule("SliceGrad", "Slice", gradient=0, shape=1, rest=(2, 3, 4, 5)),
        LayerNormalizationGradRule(),
        LeakyReluGradRule(),
        LogSoftmaxGradRule(),
        MaxPoolGradRule(),
        ReduceSumTrainingRule(),
        ReluGradRule(),
        ScaleRule(),
        SigmoidGradRule(),
        SoftmaxGradRule(),
        TanhGradRule(),
        TriluRule(),
    )
}


def lower(model: ir.Model) -> None:
    """Rewrite every training-only operator of the model, in place.

    Raises
    ------
    UnsupportedOpError
        A node is neither standard nor covered by a rule.
    """
    graph = model.graph
    for node in list(graph):
        if (rule := RULES.get(node.op_type)) is not None:
            replace_node(node, rule.lower(node, Emitter(graph, node.op_type, node)))
        elif node.op_type in ("Sum", "Identity") and len(node.inputs) == 1 and node.inputs[0] is not None:
            replace_node(node, node.inputs[0])
        elif not is_standard(node):
            raise UnsupportedOpError(
                f"node {node.name!r} ({node.domain or 'ai.onnx'}.{node.op_type}) has no lowering to standard ONNX; "
                "export the model without the operator whose gradient this is"
            )


def is_standard(node: ir.Node) -> bool:
    """Tell whether a node's operator is in the default domain of opset `OPSET`."""
    return node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type, OPSET, "")


def _summed_like(emit: Emitter, value: ir.Value, full: ir.Value | None, like: ir.Value | None) -> ir.Value:
    """Sum a gradient over the axes along which `like` was repeated to the shape of `full`."""
    whole, own = extents(full), extents(like)
    if whole is None or own is None:
        raise UnsupportedOpError(
            f"value {getattr(like, 'name', None)!r} has unknown rank, so its gradient cannot be summed"
        )
    added = len(whole) - len(own)
    axes = [axis for axis in range(len(whole)) if axis < added or (own[axis - added] == 1 and whole[axis] != 1)]
    if not axes:
        return value
    summed = emit("ReduceSum", value, emit.integers(*axes), keepdims=1)
    return emit("Squeeze", summed, emit.integers(*range(added))) if added else summed
