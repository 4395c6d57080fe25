"""QDQ models: quantised weights back in floating point, quantised activations as rounding with a straight-through gradient."""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gradscore.graph.nodes.emitter import Emitter, attribute, dtype_of
from gradscore.graph.nodes.requirements import array_of, input_of, rank_of, refusal


def dequantize(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """DequantizeLinear(QuantizeLinear(x, s, z), s, z) = (clip(round(x/s), low − z, high − z))·s.

    Weights never come here: what depends on no input was computed before.
    """
    quantizer = node.inputs[0].producer() if node.inputs[0] is not None else None
    if quantizer is None or quantizer.op_type != "QuantizeLinear":
        raise refusal(node, "reads integers that no QuantizeLinear made: score the model before quantisation")
    scale, zero = _grid(quantizer)
    scale_after, zero_after = _grid(node)
    if not (np.array_equal(scale, scale_after) and np.array_equal(zero, zero_after)):
        raise refusal(node, "does not undo its QuantizeLinear: score the model before quantisation")
    limits = _limits(quantizer)
    data, kind = quantizer.inputs[0], dtype_of(quantizer.inputs[0])
    column = [1] * rank_of(data, quantizer)
    if scale.size > 1:
        column[attribute(quantizer, "axis", 1)] = -1
    factor = emit.constant(scale.reshape(column if scale.size > 1 else ()), kind)
    low, high = (emit.constant(limit - float(zero.flat[0]), kind) for limit in limits)
    if np.ptp(zero) != 0:
        raise refusal(
            node, "has another zero point in each channel, which has no rule: score the model before quantisation"
        )
    rounded = emit("Round", emit("Div", data, factor))
    return emit("Mul", emit("Clip", rounded, low, high), factor)


def _grid(node: ir.Node) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    scale = np.asarray(array_of(node.inputs[1], node), dtype=np.float64)
    if attribute(node, "block_size", 0):
        raise refusal(node, "quantises activations in blocks, which has no rule: score the model before quantisation")
    zero = input_of(node, 2)
    return scale, np.zeros(scale.shape) if zero is None else np.asarray(array_of(zero, node), dtype=np.float64)


def _limits(quantizer: ir.Node) -> tuple[float, float]:
    zero = input_of(quantizer, 2)
    kind = ir.DataType.UINT8 if zero is None or zero.dtype is None else zero.dtype
    if not kind.is_integer():
        raise refusal(quantizer, f"quantises to {kind}, which has no rule: score the model before quantisation")
    signed, width = not kind.name.startswith("U"), kind.bitwidth
    return (-(2.0 ** (width - 1)), 2.0 ** (width - 1) - 1) if signed else (0.0, 2.0**width - 1)
