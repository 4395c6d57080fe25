"""Convolutions and pools with everything explicit: kernel, pads, output padding; pools without a gradient by others."""

from math import prod

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.emitter import Emitter, attribute, dtype_of
from gradscore.graph.nodes.requirements import channels_of, extent_of, rank_of, refusal, spatial_of
from gradscore.graph.normalize import reductions


def explicit_pads(node: ir.Node, emit: Emitter) -> None:  # noqa: ARG001 - rules share a signature
    """auto_pad=SAME_UPPER|SAME_LOWER|VALID -> pads, from the input's static extents; kernel_shape from the weight."""
    kernel = _explicit_kernel(node)
    auto_pad = attribute(node, "auto_pad", "NOTSET")
    if auto_pad == "NOTSET":
        return
    rank = len(kernel)
    strides, reach = attribute(node, "strides", [1] * rank), _reach(node, kernel)
    pads = [0] * (2 * rank)
    for axis, size in enumerate(spatial_of(node.inputs[0], node) if auto_pad != "VALID" else ()):
        total = max(0, (-(-size // strides[axis]) - 1) * strides[axis] + reach[axis] + 1 - size)
        pads[axis], pads[axis + rank] = _halves(total, more_at_end=auto_pad == "SAME_UPPER")
    del node.attributes["auto_pad"]
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)


def explicit_transposed_pads(node: ir.Node, emit: Emitter) -> None:  # noqa: ARG001 - rules share a signature
    """ConvTranspose with auto_pad or output_shape -> with pads and output_padding."""
    kernel, rank = _explicit_kernel(node), rank_of(node.inputs[0], node) - 2
    strides, extra = attribute(node, "strides", [1] * rank), attribute(node, "output_padding", [0] * rank)
    auto_pad, wanted = attribute(node, "auto_pad", "NOTSET"), attribute(node, "output_shape", None)
    if auto_pad == "NOTSET" and wanted is None:
        return
    pads, reach = [0] * (2 * rank), _reach(node, kernel)
    wanted = wanted[-rank:] if wanted else None
    for axis in range(rank if wanted or auto_pad != "VALID" else 0):
        size = extent_of(node.inputs[0], 2 + axis, node)
        full = strides[axis] * (size - 1) + extra[axis] + reach[axis] + 1
        total = full - (wanted[axis] if wanted else size * strides[axis])
        pads[axis], pads[axis + rank] = _halves(max(0, total), more_at_end=auto_pad != "SAME_LOWER")
        extra[axis] += max(0, -total)
    for name in ("auto_pad", "output_shape"):
        node.attributes.pop(name, None)
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)
    node.attributes["output_padding"] = ir.AttrInt64s("output_padding", extra)


def slope_behind_pool(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """MaxPool(LeakyRelu(x)) = LeakyRelu(MaxPool(x)), at a fraction of the size: maxima stay where they are as α > 0."""
    data = node.inputs[0]
    slope = data.producer() if data is not None else None
    if data is None or slope is None or slope.op_type != "LeakyRelu" or data.is_graph_output():
        return None
    alpha, shrinks = attribute(slope, "alpha", 0.01), prod(attribute(node, "strides", [1])) > 1
    if alpha <= 0 or not shrinks or len(list(data.uses())) > 1 or any(output.uses() for output in node.outputs[1:]):
        return None
    pooled = emit("MaxPool", slope.inputs[0], **{name: item.value for name, item in node.attributes.items()})
    return emit("LeakyRelu", pooled, alpha=alpha)


def dilated_average_pool(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """AveragePool with dilations (opset 19) = a depthwise Conv with equal weights."""
    dilations = attribute(node, "dilations", [1])
    if set(dilations) == {1}:
        node.attributes.pop("dilations", None)
        return None
    explicit_pads(node, emit)
    if attribute(node, "ceil_mode", 0) or (
        any(attribute(node, "pads", [0])) and not attribute(node, "count_include_pad", 0)
    ):
        raise refusal(
            node, "is dilated and leaves padding out of its mean, which has no rule: export it with count_include_pad=1"
        )
    data, kernel = node.inputs[0], attribute(node, "kernel_shape", [])
    channels = channels_of(data, node)
    weight = emit.constant(np.full((channels, 1, *kernel), 1 / np.prod(kernel)), dtype_of(data))
    kept = {name: attribute(node, name, None) for name in ("strides", "pads") if name in node.attributes}
    return emit("Conv", data, weight, kernel_shape=kernel, dilations=dilations, group=channels, **kept)


def lp_pool(node: ir.Node, emit: Emitter) -> ir.Value:
    """LpPool(x) = the p-th root of |x|ᵖ summed over each window, by a depthwise Conv of ones."""
    explicit_pads(node, emit)
    data, kernel, order = node.inputs[0], attribute(node, "kernel_shape", []), attribute(node, "p", 2)
    rank, channels = len(kernel), channels_of(data, node)
    strides, pads = attribute(node, "strides", [1] * rank), list(attribute(node, "pads", [0] * (2 * rank)))
    if attribute(node, "ceil_mode", 0):  # the last windows reach beyond the padding
        ends = zip(spatial_of(data, node), spatial_of(node.outputs[0], node), _reach(node, kernel), strict=True)
        for axis, (size, count, reach) in enumerate(ends):
            pads[axis + rank] = max(0, (count - 1) * strides[axis] + reach + 1 - size - pads[axis])
    ones = emit.constant(np.ones((channels, 1, *kernel)), dtype_of(data))
    total = emit(
        "Conv", reductions.power_of(emit, data, order), ones, kernel_shape=kernel, strides=strides, pads=pads,
        dilations=attribute(node, "dilations", [1] * rank), group=channels,
    )  # fmt: skip
    return reductions.root_of(emit, total, order)


def _explicit_kernel(node: ir.Node) -> list[int]:
    if "kernel_shape" not in node.attributes:
        kernel = spatial_of(node.inputs[1], node)
        node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", kernel)
    return attribute(node, "kernel_shape", [])  # type: ignore[no-any-return]  # attributes have no types


def _reach(node: ir.Node, kernel: list[int]) -> list[int]:
    dilations = attribute(node, "dilations", [1] * len(kernel))
    return [(size - 1) * dilation for size, dilation in zip(kernel, dilations, strict=True)]


def _halves(total: int, *, more_at_end: bool) -> tuple[int, int]:
    return (total // 2, total - total // 2) if more_at_end else (total - total // 2, total // 2)
