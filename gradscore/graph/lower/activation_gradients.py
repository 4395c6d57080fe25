"""Gradients of activations, softmaxes and layer normalisations in standard ONNX."""

import onnx_ir as ir

from gradscore.errors import UnsupportedOpError
from gradscore.graph.differentiate.activations import DERIVATIVES, activated
from gradscore.graph.lower.lowering_rule import LoweringRule, scalar
from gradscore.graph.nodes.emitter import Emitter, attribute, dtype_of, extents


class ReluGradRule(LoweringRule):
    """dX = dY · clip(y · 1e38, 0, 1): 1 where y > 0, else 0, in half the time of Where.

    y = relu(x) has x's mask, and leaves the runtime free to fuse relu into its producer.
    """

    op_type = "ReluGrad"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, data = node.inputs
        return emit("Mul", gradient, _step(emit, activated(data, "Relu"), 0.0, 1.0))


class LeakyReluGradRule(LoweringRule):
    """dX = dY · clip(y · 1e38, alpha, 1): 1 where y > 0, else alpha; y has x's sign since alpha ≥ 0."""

    op_type = "LeakyReluGrad"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, data = node.inputs
        alpha = attribute(node, "alpha", 0.01)
        if not 0 <= alpha <= 1:
            raise UnsupportedOpError(f"node {node.name!r}: LeakyRelu with alpha {alpha} outside 0..1 is not lowered")
        return emit("Mul", gradient, _step(emit, activated(data, "LeakyRelu"), alpha, 1.0))


class SigmoidGradRule(LoweringRule):
    """dX = dY · y · (1 − y); where a Sigmoid stood in for another activation, that one's derivative."""

    op_type = "SigmoidGrad"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, activated = node.inputs
        forward = activated.producer() if activated is not None else None
        if forward is not None and gradient is not None and forward.op_type in DERIVATIVES:
            return DERIVATIVES[forward.op_type].lower(forward, gradient, emit)
        slope = emit("Mul", activated, emit("Sub", scalar(emit, 1, gradient), activated))
        return emit("Mul", gradient, slope)


class TanhGradRule(LoweringRule):
    """dX = dY · (1 − y²)."""

    op_type = "TanhGrad"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, activated = node.inputs
        slope = emit("Sub", scalar(emit, 1, gradient), emit("Mul", activated, activated))
        return emit("Mul", gradient, slope)


class SoftmaxGradRule(LoweringRule):
    """dX = (dY − Σ dY·y) · y along the axis."""

    op_type = "SoftmaxGrad_13"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, activated = node.inputs
        axes = emit.integers(attribute(node, "axis", -1))
        inner = emit("ReduceSum", emit("Mul", gradient, activated), axes, keepdims=1)
        return emit("Mul", emit("Sub", gradient, inner), activated)


class LogSoftmaxGradRule(LoweringRule):
    """dX = dY − exp(y) · Σ dY along the axis."""

    op_type = "LogSoftmaxGrad_13"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, activated = node.inputs
        total = emit("ReduceSum", gradient, emit.integers(attribute(node, "axis", -1)), keepdims=1)
        return emit("Sub", gradient, emit("Mul", emit("Exp", activated), total))


class LayerNormalizationGradRule(LoweringRule):
    """dX = (dY − mean(dY) − y · mean(dY · y)) / σ; the scale is 1 since normalisation took it out.

    σ is computed from x: where an addition comes before, the runtime makes both one SkipLayerNormalization, which on CUDA
    does not write the inverse deviation.
    """

    op_type = "LayerNormalizationGrad"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, data, _, _, inverse_deviation = node.inputs
        forward = inverse_deviation.producer() if inverse_deviation is not None else None
        shape = extents(data)
        if forward is None or forward.op_type != "LayerNormalization" or shape is None:
            raise UnsupportedOpError(
                f"node {node.name!r} (LayerNormalizationGrad) does not follow a LayerNormalization"
            )
        axis = attribute(node, "axis", -1)
        axes = emit.integers(*range(axis % len(shape), len(shape)))
        normalised = forward.outputs[0]
        along = emit("ReduceMean", emit("Mul", gradient, normalised), axes, keepdims=1)
        change = emit("Sub", _centred(emit, gradient, axes), emit("Mul", normalised, along))
        deviation = _centred(emit, data, axes)
        variance = emit("ReduceMean", emit("Mul", deviation, deviation), axes, keepdims=1)
        epsilon = scalar(emit, attribute(forward, "epsilon", 1e-5), data)
        return emit("Div", change, emit("Sqrt", emit("Add", variance, epsilon)))


def _centred(emit: Emitter, data: ir.Value | None, axes: ir.Value) -> ir.Value:
    return emit("Sub", data, emit("ReduceMean", data, axes, keepdims=1))


def _step(emit: Emitter, data: ir.Value | None, low: float, high: float) -> ir.Value:
    """`high` where data > 0, else `low`."""
    steep = emit("Mul", data, scalar(emit, _STEEP[dtype_of(data).itemsize], data))
    return emit("Clip", steep, scalar(emit, low, data), scalar(emit, high, data))


_STEEP = {2: 6e4, 4: 1e38, 8: 1e300}  # by the type's bytes: takes its smallest normal number to 1 or near it
