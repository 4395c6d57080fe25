"""Derivatives of the elementwise activations that the gradient builder does not know.

The builder is shown a Sigmoid in their place; its SigmoidGrad is then lowered by the rule here, with the activation's own
input x and output y, while the forward graph keeps the activation as the model has it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import onnx_ir as ir

from gradscore.graph.nodes.emitter import Emitter, attribute, dtype_of

QUANTISER = "DequantizeLinear/"  # begins the names of what a quantiser's rewriting emits; engines keep names


class Derivative(ABC):
    """dX from dY for y = f(x); the docstring of each states it."""

    op_type: str

    @abstractmethod
    def lower(self, node: ir.Node, gradient: ir.Value, emit: Emitter) -> ir.Value:
        """Emit dX; `node` is the activation in the forward graph."""


class HardSigmoidDerivative(Derivative):
    """dX = alpha · dY where 0 < y < 1."""

    op_type = "HardSigmoid"

    def lower(self, node: ir.Node, gradient: ir.Value, emit: Emitter) -> ir.Value:
        y = node.outputs[0]
        inside = emit("And", emit("Greater", y, _number(emit, 0, y)), emit("Less", y, _number(emit, 1, y)))
        slope = emit("Mul", gradient, _number(emit, attribute(node, "alpha", 0.2), y))
        return emit("Where", inside, slope, _number(emit, 0, y))


class HardSwishDerivative(Derivative):
    """dX = dY · (0 below −3, 1 above 3, x/3 + 1/2 between)."""

    op_type = "HardSwish"

    def lower(self, node: ir.Node, gradient: ir.Value, emit: Emitter) -> ir.Value:
        x = node.inputs[0]
        middle = emit("Add", emit("Mul", x, _number(emit, 1 / 3, x)), _number(emit, 0.5, x))
        above = emit("Where", emit("GreaterOrEqual", x, _number(emit, 3, x)), _number(emit, 1, x), middle)
        slope = emit("Where", emit("LessOrEqual", x, _number(emit, -3, x)), _number(emit, 0, x), above)
        return emit("Mul", gradient, slope)


class ExponentialDerivative(Derivative):
    """dX = dY · outer where x > 0, else dY · (y · factor + offset): Elu, Selu and Celu differ in the three numbers."""

    def __init__(self, op_type: str) -> None:
        self.op_type = op_type

    def lower(self, node: ir.Node, gradient: ir.Value, emit: Emitter) -> ir.Value:
        x, y = node.inputs[0], node.outputs[0]
        outer, factor, offset = self._numbers(node)
        negative = emit("Add", emit("Mul", y, _number(emit, factor, y)), _number(emit, offset, y))
        return emit(
            "Mul", gradient, emit("Where", emit("Greater", x, _number(emit, 0, x)), _number(emit, outer, x), negative)
        )

    def _numbers(self, node: ir.Node) -> tuple[float, float, float]:
        if self.op_type == "Selu":
            alpha, gamma = (
                attribute(node, "alpha", 1.67326319217681884765625),
                attribute(node, "gamma", 1.05070102214813232421875),
            )
            return gamma, 1.0, gamma * alpha
        alpha = attribute(node, "alpha", 1.0)
        return (1.0, 1.0, alpha) if self.op_type == "Elu" else (1.0, 1 / alpha, 1.0)


class SoftplusDerivative(Derivative):
    """dX = dY · sigmoid(x)."""

    op_type = "Softplus"

    def lower(self, node: ir.Node, gradient: ir.Value, emit: Emitter) -> ir.Value:
        return emit("Mul", gradient, emit("Sigmoid", node.inputs[0]))


class SoftsignDerivative(Derivative):
    """dX = dY · (1 − |y|)²."""

    op_type = "Softsign"

    def lower(self, node: ir.Node, gradient: ir.Value, emit: Emitter) -> ir.Value:
        y = node.outputs[0]
        rest = emit("Sub", _number(emit, 1, y), emit("Abs", y))
        return emit("Mul", gradient, emit("Mul", rest, rest))


class MishDerivative(Derivative):
    """dX = dY · (t + x · (1 − t²) · sigmoid(x)) with t = tanh(softplus(x))."""

    op_type = "Mish"

    def lower(self, node: ir.Node, gradient: ir.Value, emit: Emitter) -> ir.Value:
        x = node.inputs[0]
        t = emit("Tanh", emit("Softplus", x))
        steep = emit("Mul", emit("Sub", _number(emit, 1, x), emit("Mul", t, t)), emit("Sigmoid", x))
        return emit("Mul", gradient, emit("Add", t, emit("Mul", x, steep)))


class ThresholdedReluDerivative(Derivative):
    """dX = dY where x > alpha, else 0."""

    op_type = "ThresholdedRelu"

    def lower(self, node: ir.Node, gradient: ir.Value, emit: Emitter) -> ir.Value:
        x = node.inputs[0]
        above = emit("Greater", x, _number(emit, attribute(node, "alpha", 1.0), x))
        return emit("Where", above, gradient, _number(emit, 0, x))


class ClipDerivative(Derivative):
    """dX = dY where y lies strictly between the bounds or x is at none of them, else 0."""

    op_type = "Clip"

    def lower(self, node: ir.Node, gradient: ir.Value, emit: Emitter) -> ir.Value:
        x, y = node.inputs[0], node.outputs[0]
        return emit("Where", emit("Equal", x, y), gradient, _number(emit, 0, x))


class ErfDerivative(Derivative):
    """dX = dY · 2/√π · exp(−x²)."""

    op_type = "Erf"

    def lower(self, node: ir.Node, gradient: ir.Value, emit: Emitter) -> ir.Value:
        x = node.inputs[0]
        bell = emit("Exp", emit("Neg", emit("Mul", x, x)))
        return emit("Mul", gradient, emit("Mul", bell, _number(emit, 1.1283791670955126, x)))


class SignDerivative(Derivative):
    """dX = dY · sign(x)."""

    op_type = "Abs"

    def lower(self, node: ir.Node, gradient: ir.Value, emit: Emitter) -> ir.Value:
        return emit("Mul", gradient, emit("Sign", node.inputs[0]))


class ShrinkDerivative(Derivative):
    """dX = dY where |x| > lambd, else 0."""

    op_type = "Shrink"

    def lower(self, node: ir.Node, gradient: ir.Value, emit: Emitter) -> ir.Value:
        x = node.inputs[0]
        outside = emit("Greater", emit("Abs", x), _number(emit, attribute(node, "lambd", 0.5), x))
        return emit("Where", outside, gradient, _number(emit, 0, x))


class RoundDerivative(Derivative):
    """dX = 0, a step has no slope; dX = dY where a quantiser rounds, the straight-through estimator.

    Source: Bengio, Léonard, Courville 2013, "Estimating or Propagating Gradients Through Stochastic Neurons".
    """

    op_type = "Round"

    def lower(self, node: ir.Node, gradient: ir.Value, emit: Emitter) -> ir.Value:
        if str(node.outputs[0].name).startswith(QUANTISER):
            return gradient
        return emit("Mul", gradient, _number(emit, 0, node.inputs[0]))


class ModuloDerivative(Derivative):
    """dX = dY: the remainder grows with what is divided, but for the steps where it falls back to 0."""

    op_type = "Mod"

    def lower(self, node: ir.Node, gradient: ir.Value, emit: Emitter) -> ir.Value:  # noqa: ARG002 - rules share a signature
        return gradient


class SlopeDerivative(Derivative):
    """dX = dY · slope, the slope given as ONNX operators on x and y."""

    def __init__(self, op_type: str, slope: Callable[[Emitter, ir.Value | None, ir.Value], ir.Value]) -> None:
        self.op_type = op_type
        self._slope = slope

    def lower(self, node: ir.Node, gradient: ir.Value, emit: Emitter) -> ir.Value:
        return emit("Mul", gradient, self._slope(emit, node.inputs[0], node.outputs[0]))


class ZeroDerivative(Derivative):
    """dX = 0: steps have no slope."""

    def __init__(self, op_type: str) -> None:
        self.op_type = op_type

    def lower(self, node: ir.Node, gradient: ir.Value, emit: Emitter) -> ir.Value:
        return emit("Mul", gradient, _number(emit, 0, node.inputs[0]))


DERIVATIVES: dict[str, Derivative] = {
    rule.op_type: rule
    for rule in (
        ClipDerivative(),
        ErfDerivative(),
        ExponentialDerivative("Celu"),
        ExponentialDerivative("Elu"),
        ExponentialDerivative("Selu"),
        HardSigmoidDerivative(),
        HardSwishDerivative(),
        MishDerivative(),
        ModuloDerivative(),
        RoundDerivative(),
        ShrinkDerivative(),
        SignDerivative(),
        SoftplusDerivative(),
        SoftsignDerivative(),
        SlopeDerivative("Acos", lambda emit, x, _: emit("Neg", _inverse_root(emit, x, 1, -1))),
        SlopeDerivative("Acosh", lambda emit, x, _: _inverse_root(emit, x, -1, 1)),
        SlopeDerivative("Asin", lambda emit, x, _: _inverse_root(emit, x, 1, -1)),
        SlopeDerivative("Asinh", lambda emit, x, _: _inverse_root(emit, x, 1, 1)),
        SlopeDerivative("Atan", lambda emit, x, _: emit("Reciprocal", _quadratic(emit, x, 1, 1))),
        SlopeDerivative("Atanh", lambda emit, x, _: emit("Reciprocal", _quadratic(emit, x, 1, -1))),
        SlopeDerivative("Cosh", lambda emit, x, _: emit("Sinh", x)),
        SlopeDerivative("Sinh", lambda emit, x, _: emit("Cosh", x)),
        SlopeDerivative("Tan", lambda emit, _, y: _quadratic(emit, y, 1, 1)),
        ThresholdedReluDerivative(),
        ZeroDerivative("Ceil"),
        ZeroDerivative("Floor"),
        ZeroDerivative("Sign"),
    )
}


def _quadratic(emit: Emitter, x: ir.Value | None, constant: float, factor: float) -> ir.Value:
    """Constant + factor · x²."""
    square = emit("Mul", x, x)
    signed = square if factor == 1 else emit("Neg", square)
    return emit("Add", signed, _number(emit, constant, x))


def _inverse_root(emit: Emitter, x: ir.Value | None, constant: float, factor: float) -> ir.Value:
    return emit("Reciprocal", emit("Sqrt", _quadratic(emit, x, constant, factor)))


def _number(emit: Emitter, number: float, like: ir.Value | None) -> ir.Value:
    return emit.constant(number, dtype_of(like))


def activated(value: ir.Value | None, op_type: str) -> ir.Value | None:
    """Return an activation's output, given its input or itself, so that only one of the two need be kept."""
    uses = [] if value is None else [use.node for use in value.uses() if use.node.op_type == op_type]
    return uses[0].outputs[0] if uses else value
