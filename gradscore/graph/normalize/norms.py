"""Norm layers as plain arithmetic, their scale and bias standing free; each docstring shows the algebra."""

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.emitter import Emitter, attribute, dtype_of, extents
from gradscore.graph.nodes.requirements import array_of, channels_of, input_of, rank_of, refusal


def batch_normalization(node: ir.Node, emit: Emitter) -> ir.Value:
    """y = (x + (−μ))/√(σ² + ε) · γ + β, μ and σ² being fixed at inference.

    A sum and a product, unlike a difference, runtimes merge with the convolution before.
    """
    data, scale, bias, mean, variance = node.inputs
    rank = rank_of(data, node)
    column = (1, -1, *[1] * (rank - 2)) if rank > 2 else (-1,)
    centre, spread = array_of(mean, node), array_of(variance, node)
    slope = 1 / np.sqrt(spread.astype(np.float64) + attribute(node, "epsilon", 1e-5))
    kind = dtype_of(data)
    centred = emit("Add", data, emit.constant(-centre.reshape(column), kind))
    normalised = emit("Mul", centred, emit.constant(slope.reshape(column), kind))
    return _affine(emit, normalised, scale, bias, column[1:] if rank > 2 else column)


def layer_normalization(node: ir.Node, emit: Emitter) -> ir.Value:
    """y = LayerNormalization(x, 1) · γ + β."""
    data, scale = node.inputs[:2]
    shape = extents(scale)
    if shape is None or None in shape or any(output.uses() for output in node.outputs[1:]):
        raise refusal(node, "has a scale of unknown shape, or its mean is used: export the model in eval mode")
    sizes = [int(extent or 0) for extent in shape]
    ones, zeros = (emit.constant(np.full(sizes, number), dtype_of(data)) for number in (1, 0))
    axis, epsilon = attribute(node, "axis", -1), attribute(node, "epsilon", 1e-5)
    normalised = emit.emit("LayerNormalization", (data, ones, zeros), 3, {"axis": axis, "epsilon": epsilon})[0]
    return _affine(emit, normalised, scale, input_of(node, 2), None)


def rms_normalization(node: ir.Node, emit: Emitter) -> ir.Value:
    """y = x/√(mean x² + ε) · γ over the axes from `axis` on."""
    data, scale = node.inputs
    rank = rank_of(data, node)
    axes = emit.integers(*range(attribute(node, "axis", -1) % rank, rank))
    square = emit("ReduceMean", emit("Mul", data, data), axes, keepdims=1)
    root = emit("Sqrt", emit("Add", square, emit.constant(attribute(node, "epsilon", 1e-5), dtype_of(data))))
    return _affine(emit, emit("Div", data, root), scale, None, None)


def instance_normalization(node: ir.Node, emit: Emitter) -> ir.Value:
    """y = (x − mean)/√(var + ε) · γ + β over the positions of each channel."""
    data, scale, bias = node.inputs
    rank = rank_of(data, node)
    normalised = _standardised(emit, data, list(range(2, rank)), attribute(node, "epsilon", 1e-5))
    return _affine(emit, normalised, scale, bias, (-1, *[1] * (rank - 2)))


def group_normalization(node: ir.Node, emit: Emitter) -> ir.Value:
    """y = (x − mean)/√(var + ε) · γ + β over each group's channels and positions.

    γ and β are one a channel, or one a group as opset 18 had them.
    """
    data, scale, bias = node.inputs
    rank, groups = rank_of(data, node), attribute(node, "num_groups", 1)
    grouped = emit("Reshape", data, emit.integers(0, groups, -1))
    normalised = _standardised(emit, grouped, [2], attribute(node, "epsilon", 1e-5))
    whole = emit("Shape", data)
    if channels_of(data, node) != groups and extents(scale) == (groups,):
        return emit("Reshape", _affine(emit, normalised, scale, bias, (-1, 1)), whole)
    return _affine(emit, emit("Reshape", normalised, whole), scale, bias, (-1, *[1] * (rank - 2)))


def mean_variance_normalization(node: ir.Node, emit: Emitter) -> ir.Value:
    """y = (x − mean)/(√var + 1e-9) over the axes given."""
    data, axes = node.inputs[0], emit.integers(*attribute(node, "axes", [0, 2, 3]))
    centred = emit("Sub", data, emit("ReduceMean", data, axes, keepdims=1))
    deviation = emit("Sqrt", emit("ReduceMean", emit("Mul", centred, centred), axes, keepdims=1))
    return emit("Div", centred, emit("Add", deviation, emit.constant(1e-9, dtype_of(data))))


def lp_normalization(node: ir.Node, emit: Emitter) -> ir.Value:
    """y = x / ‖x‖ₚ along the axis, p being 1 or 2."""
    data, axis = node.inputs[0], emit.integers(attribute(node, "axis", -1))
    if attribute(node, "p", 2) == 1:
        return emit("Div", data, emit("ReduceSum", emit("Abs", data), axis, keepdims=1))
    return emit("Div", data, emit("Sqrt", emit("ReduceSum", emit("Mul", data, data), axis, keepdims=1)))


def local_response_normalization(node: ir.Node, emit: Emitter) -> ir.Value:
    """LRN(x) = x / (bias + alpha · mean of x² over `size` channels)^beta; the mean as a padded average pool."""
    data, size = node.inputs[0], attribute(node, "size", 1)
    kind = dtype_of(data)
    square = emit("Reshape", emit("Mul", data, data), emit.integers(0, 1, channels_of(data, node), -1))
    before = (size - 1) // 2
    mean = emit(
        "AveragePool", square, kernel_shape=[size, 1], pads=[before, 0, size - 1 - before, 0], count_include_pad=1
    )  # fmt: skip
    scaled = emit(
        "Mul", emit("Reshape", mean, emit("Shape", data)), emit.constant(attribute(node, "alpha", 1e-4), kind)
    )
    base = emit("Add", scaled, emit.constant(attribute(node, "bias", 1.0), kind))
    return emit("Div", data, emit("Pow", base, emit.constant(attribute(node, "beta", 0.75), kind)))


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
