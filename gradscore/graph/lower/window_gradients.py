"""Gradients of convolutions and pools in standard ONNX."""

import re

import numpy as np
import onnx_ir as ir

from gradscore.graph.lower.lowering_rule import LoweringRule, scalar
from gradscore.graph.nodes.emitter import Emitter, attribute, dtype_of, extents
from gradscore.graph.nodes.requirements import refusal


class ConvGradRule(LoweringRule):
    """dX = Conv(dY, W flipped and transposed) at stride 1, else ConvTranspose(dY, W) padded to X's size."""

    op_type = "ConvGrad"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, data, weight = node.inputs
        if any(output.uses() for output in node.outputs[1:]):
            raise refusal(node, "is asked for a weight gradient, which is not lowered")
        shape = extents(weight)
        if shape is None or None in shape:
            raise refusal(node, "has a kernel of unknown shape")
        kernel = [int(extent) for extent in shape[2:] if extent is not None]
        rank = len(kernel)
        strides, dilations = attribute(node, "strides", [1] * rank), attribute(node, "dilations", [1] * rank)
        pads, group = attribute(node, "pads", [0] * (2 * rank)), attribute(node, "group", 1)
        reach = [(size - 1) * dilation for size, dilation in zip(kernel, dilations, strict=True)]
        flipped_pads = [full - pad for full, pad in zip(reach * 2, pads, strict=True)]
        if set(strides) == {1} and min(flipped_pads) >= 0:
            flipped = self._flipped(weight, tuple(int(extent or 0) for extent in shape), group, emit)
            return emit(
                "Conv", gradient, flipped, kernel_shape=kernel, dilations=dilations, pads=flipped_pads, group=group
            )
        sizes = extents(data)
        if sizes is None or None in sizes[2:]:
            raise refusal(node, "is of a strided Conv, which needs an input of fixed size: export it so")
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


class ConvTransposeGradRule(LoweringRule):
    """dX = Conv(dY, W) with the geometry of the transposed convolution."""

    op_type = "ConvTransposeGrad"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, _, weight = node.inputs
        kept = ("kernel_shape", "strides", "pads", "dilations", "group")
        return emit(
            "Conv", gradient, weight, **{name: attribute(node, name, None) for name in kept if name in node.attributes}
        )


class MaxPoolGradRule(LoweringRule):
    """dX = dY scattered to the flat Indices of the pool; overlapping windows add up."""

    op_type = "MaxPoolGrad"

    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        gradient, indices = node.inputs
        pool = indices.producer() if indices is not None else None
        if pool is None or pool.op_type != "MaxPool" or attribute(pool, "storage_order", 0):
            raise refusal(node, "does not follow a row-major MaxPool")
        shape = emit("Shape", pool.inputs[0])
        flat = emit.integers(-1)
        zeros = emit("Expand", scalar(emit, 0, gradient), emit("ReduceProd", shape, emit.integers(0), keepdims=1))
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
            raise refusal(node, "needs an input of fixed size: export it so")
        kernel = attribute(node, "kernel_shape", [])
        rank, channels = len(kernel), int(inner[1] or 0)
        strides, pads = attribute(node, "strides", [1] * rank), attribute(node, "pads", [0] * (2 * rank))
        sizes = [int(size or 0) for size in inner[2:]]
        counted = bool(attribute(node, "count_include_pad", 0))
        counts = [
            _window_counts(
                sizes[axis],
                int(outer[2 + axis] or 0),
                kernel[axis],
                strides[axis],
                pads[axis],
                pads[axis + rank],
                counted,
            )
            for axis in range(rank)
        ]
        divisor = counts[0] if rank == 1 else _outer_product(counts)
        dtype = dtype_of(gradient)
        share = emit("Div", gradient, emit.constant(divisor[None, None], dtype))
        ends = [
            (int(outer[2 + axis] or 0) - 1) * strides[axis] + kernel[axis] - pads[axis] - sizes[axis]
            for axis in range(rank)
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
            data = other.inputs[0] if other.op_type == "AveragePool" else None
            if data is not None and re.fullmatch(rf"{re.escape(str(data.name))}_grad(_\d+)?", name):
                return extents(data)
        return None


def _overlaps(pool: ir.Node) -> bool:
    kernel = attribute(pool, "kernel_shape", [])
    strides, dilations = attribute(pool, "strides", [1] * len(kernel)), attribute(pool, "dilations", [1] * len(kernel))
    return any(
        (size - 1) * dilation + 1 > stride for size, stride, dilation in zip(kernel, strides, dilations, strict=True)
    )


def _window_counts(
    size: int, outputs: int, kernel: int, stride: int, begin: int, end: int, counted: bool
) -> np.ndarray:
    starts = np.arange(outputs) * stride - begin
    low, high = (-begin, size + end) if counted else (0, size)
    return np.minimum(starts + kernel, high) - np.maximum(starts, low)


def _outer_product(vectors: list[np.ndarray]) -> np.ndarray:
    product = vectors[0]
    for vector in vectors[1:]:
        product = product[..., None] * vector
    return product
