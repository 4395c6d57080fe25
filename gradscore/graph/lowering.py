"""Pass 5: training-only operators into standard ONNX.

Requires: a differentiated graph with inferred shapes. Ensures: every node is of the default domain and known to the
standard, so the model runs in any runtime.
"""

import re
from abc import ABC, abstractmethod

import numpy as np
import onnx
import onnx_ir as ir

from gradscore.errors import UnsupportedOpError
from gradscore.graph.emitter import Emitter, attribute, dtype_of, extents, replace_node
from gradscore.graph.normalize import OPSET


class LoweringRule(ABC):
    """Rewrites one training-only operator; the docstring of each shows the algebra."""

    op_type: str

    @abstractmethod
    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        """Emit the standard operators and return what replaces the node's first output."""


class ConvGradRule(LoweringRule):
    """dX = Conv(dY, W flipped and transposed) at stride 1, else ConvTranspose(dY, W) padded to X's size."""

    op_type = "ConvGrad"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, data, weight = node.inputs
        if any(output.uses() for output in node.outputs[1:]):
            raise UnsupportedOpError(f"node {node.name!r} (ConvGrad) is asked for a weight gradient, which is not lowered")
        shape = extents(weight)
        if shape is None or None in shape:
            raise UnsupportedOpError(f"node {node.name!r} (ConvGrad) has a kernel of unknown shape")
        kernel = [int(extent) for extent in shape[2:] if extent is not None]
        rank = len(kernel)
        strides, dilations = attribute(node, "strides", [1] * rank), attribute(node, "dilations", [1] * rank)
        pads, group = attribute(node, "pads", [0] * (2 * rank)), attribute(node, "group", 1)
        reach = [(size - 1) * dilation for size, dilation in zip(kernel, dilations, strict=True)]
        flipped_pads = [full - pad for full, pad in zip(reach * 2, pads, strict=True)]
        if set(strides) == {1} and min(flipped_pads) >= 0:
            flipped = self._flipped(weight, tuple(int(extent or 0) for extent in shape), group, emit)
            return emit("Conv", gradient, flipped, kernel_shape=kernel, dilations=dilations, pads=flipped_pads, group=group)
        sizes = extents(data)
        if sizes is None or None in sizes[2:]:
            raise UnsupportedOpError(f"node {node.name!r}: a strided Conv needs an input of fixed size: export it so")
        extra = [
            (int(size or 0) + pads[axis] + pads[axis + rank] - reach[axis] - 1) % strides[axis]
            for axis, size in enumerate(sizes[2:])
        ]
        return emit(
            "ConvTranspose", gradient, weight,
            kernel_shape=kernel, strides=strides, dilations=dilations, pads=pads, group=group, output_padding=extra,
        )  # fmt: skip

    @staticmethod
    def _flipped(weight: ir.Value | None, shape: tuple[int, ...], group: int, emit: Emitter) -> ir.Value:
        out, per_group, *kernel = shape
        rank = len(kernel)
        reversed_axes = emit(
            "Slice", weight, emit.integers(*[-1] * rank), emit.integers(*[np.iinfo(np.int64).min] * rank),
            emit.integers(*range(2, 2 + rank)), emit.integers(*[-1] * rank),
        )  # fmt: skip
        if group == 1:
            return emit("Transpose", reversed_axes, perm=[1, 0, *range(2, 2 + rank)])
        grouped = emit("Reshape", reversed_axes, emit.integers(group, out // group, per_group, *kernel))
        swapped = emit("Transpose", grouped, perm=[0, 2, 1, *range(3, 3 + rank)])
        return emit("Reshape", swapped, emit.integers(group * per_group, out // group, *kernel))


class ReluGradRule(LoweringRule):
    """dX = dY where y > 0, else 0; y = relu(x) has x's mask and leaves the runtime free to fuse relu into its producer."""

    op_type = "ReluGrad"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, data = node.inputs
        zero = _scalar(emit, 0, gradient)
        return emit("Where", emit("Greater", _activated(data, "Relu"), zero), gradient, zero)


class LeakyReluGradRule(LoweringRule):
    """dX = dY where y > 0, else alpha·dY; y has x's sign since alpha ≥ 0."""

    op_type = "LeakyReluGrad"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, data = node.inputs
        alpha = attribute(node, "alpha", 0.01)
        if alpha < 0:
            raise UnsupportedOpError(f"node {node.name!r}: LeakyRelu with negative alpha {alpha} is not lowered")
        positive = emit("Greater", _activated(data, "LeakyRelu"), _scalar(emit, 0, gradient))
        return emit("Where", positive, gradient, emit("Mul", gradient, _scalar(emit, alpha, gradient)))


class SigmoidGradRule(LoweringRule):
    """dX = dY · y · (1 − y)."""

    op_type = "SigmoidGrad"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, activated = node.inputs
        slope = emit("Mul", activated, emit("Sub", _scalar(emit, 1, gradient), activated))
        return emit("Mul", gradient, slope)


class TanhGradRule(LoweringRule):
    """dX = dY · (1 − y²)."""

    op_type = "TanhGrad"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, activated = node.inputs
        slope = emit("Sub", _scalar(emit, 1, gradient), emit("Mul", activated, activated))
        return emit("Mul", gradient, slope)


class SoftmaxGradRule(LoweringRule):
    """dX = (dY − Σ dY·y) · y along the axis."""

    op_type = "SoftmaxGrad_13"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, activated = node.inputs
        axes = emit.integers(attribute(node, "axis", -1))
        inner = emit("ReduceSum", emit("Mul", gradient, activated), axes, keepdims=1)
        return emit("Mul", emit("Sub", gradient, inner), activated)


class MaxPoolGradRule(LoweringRule):
    """dX = dY scattered to the flat Indices of the pool; overlapping windows add up."""

    op_type = "MaxPoolGrad"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, indices = node.inputs
        pool = indices.producer() if indices is not None else None
        if pool is None or pool.op_type != "MaxPool" or attribute(pool, "storage_order", 0):
            raise UnsupportedOpError(f"node {node.name!r} (MaxPoolGrad) does not follow a row-major MaxPool")
        shape = emit("Shape", pool.inputs[0])
        flat = emit.integers(-1)
        zeros = emit("Expand", _scalar(emit, 0, gradient), emit("ReduceProd", shape, emit.integers(0), keepdims=1))
        rows, values = emit("Reshape", indices, flat), emit("Reshape", gradient, flat)
        scattered = emit("ScatterElements", zeros, rows, values, axis=0, reduction="add" if _overlaps(pool) else "none")
        return emit("Reshape", scattered, shape)


class AveragePoolGradRule(LoweringRule):
    """dX = ConvTranspose(dY / window size, ones), one group a channel."""

    op_type = "AveragePoolGrad"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient = node.inputs[0]
        outer, inner = extents(gradient), self._data_extents(node)
        if outer is None or inner is None or None in outer[1:] or None in inner[1:]:
            raise UnsupportedOpError(f"node {node.name!r} (AveragePool) needs an input of fixed size: export it so")
        kernel = attribute(node, "kernel_shape", [])
        rank, channels = len(kernel), int(inner[1] or 0)
        strides, pads = attribute(node, "strides", [1] * rank), attribute(node, "pads", [0] * (2 * rank))
        sizes = [int(size or 0) for size in inner[2:]]
        counted = bool(attribute(node, "count_include_pad", 0))
        counts = [
            _window_counts(sizes[axis], int(outer[2 + axis] or 0), kernel[axis], strides[axis], pads[axis], pads[axis + rank], counted)
            for axis in range(rank)
        ]
        divisor = counts[0] if rank == 1 else _outer_product(counts)
        dtype = dtype_of(gradient)
        share = emit("Div", gradient, emit.constant(divisor[None, None], dtype))
        ends = [
            (int(outer[2 + axis] or 0) - 1) * strides[axis] + kernel[axis] - pads[axis] - sizes[axis] for axis in range(rank)
        ]
        return emit(
            "ConvTranspose", share, emit.constant(np.ones((channels, 1, *kernel)), dtype),
            kernel_shape=kernel, strides=strides, group=channels,
            pads=[*pads[:rank], *(max(end, 0) for end in ends)], output_padding=[max(-end, 0) for end in ends],
        )  # fmt: skip

    @staticmethod
    def _data_extents(node: ir.Node) -> tuple[int | None, ...] | None:
        """The builder gives AveragePoolGrad no data input: find the forward pool whose output has this gradient."""
        gradient = node.inputs[0]
        name = node.outputs[0].name
        if gradient is None or name is None or node.graph is None:
            return None
        for other in node.graph:
            if other.op_type == "AveragePool" and re.fullmatch(rf"{re.escape(str(other.inputs[0].name))}_grad(_\d+)?", name):
                return extents(other.inputs[0])
        return None


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
            raise UnsupportedOpError(f"node {node.name!r} (FusedMatMul) transposes its batch dimensions, which is not lowered")
        left, right = (
            self._transposed(value, attribute(node, flag, 0), emit, node)
            for value, flag in zip(node.inputs, ("transA", "transB"), strict=True)
        )
        product = emit("MatMul", left, right)
        alpha = attribute(node, "alpha", 1.0)
        return product if alpha == 1 else emit("Mul", product, _scalar(emit, alpha, product))

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
        ConvGradRule(),
        FusedMatMulRule(),
        LeakyReluGradRule(),
        MaxPoolGradRule(),
        ReluGradRule(),
        ScaleRule(),
        SigmoidGradRule(),
        SoftmaxGradRule(),
        TanhGradRule(),
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


def _activated(value: ir.Value | None, op_type: str) -> ir.Value | None:
    """Return the activation's output where `value` is its input, so that only one of the two need be kept."""
    uses = [] if value is None else [use.node for use in value.uses() if use.node.op_type == op_type]
    return uses[0].outputs[0] if uses else value


def _scalar(emit: Emitter, number: float, like: ir.Value | None) -> ir.Value:
    return emit.constant(number, dtype_of(like))


def _overlaps(pool: ir.Node) -> bool:
    kernel = attribute(pool, "kernel_shape", [])
    strides, dilations = attribute(pool, "strides", [1] * len(kernel)), attribute(pool, "dilations", [1] * len(kernel))
    return any(
        (size - 1) * dilation + 1 > stride for size, stride, dilation in zip(kernel, strides, dilations, strict=True)
    )


def _window_counts(size: int, outputs: int, kernel: int, stride: int, begin: int, end: int, counted: bool) -> np.ndarray:  # noqa: FBT001 - ONNX's own attribute
    starts = np.arange(outputs) * stride - begin
    low, high = (-begin, size + end) if counted else (0, size)
    return np.minimum(starts + kernel, high) - np.maximum(starts, low)


def _outer_product(vectors: list[np.ndarray]) -> np.ndarray:
    product = vectors[0]
    for vector in vectors[1:]:
        product = product[..., None] * vector
    return product
