"""Fixed linear maps of positions: resizing, padding by reflection, running sums, channels moved to positions and back."""

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from gradscore.graph.nodes.emitter import Emitter, attribute, dtype_of, extents
from gradscore.graph.nodes.requirements import (
    array_of,
    channels_of,
    extent_of,
    input_of,
    optional_array,
    rank_of,
    refusal,
    spatial_of,
)
from gradscore.runtime.session import open_session


def along_axis(emit: Emitter, data: ir.Value | None, matrix: NDArray[np.generic], axis: int, rank: int) -> ir.Value:
    """Return `data` with one axis multiplied by a matrix [old extent, new extent]."""
    weights = emit.constant(matrix, dtype_of(data))
    if axis == rank - 1:
        return emit("MatMul", data, weights)
    order = [position for position in range(rank) if position != axis] + [axis]
    product = emit("MatMul", emit("Transpose", data, perm=order), weights)
    return emit("Transpose", product, perm=[int(position) for position in np.argsort(order)])


def resize(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Resize(x) = x times one matrix an axis: each is what the operator itself makes of an identity."""
    data, rank = node.inputs[0], rank_of(node.inputs[0], node)
    if attribute(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise refusal(node, "crops while it resizes, which has no rule: crop with Slice before the model")
    if attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        raise refusal(node, "keeps an aspect ratio, which has no rule: export it with fixed sizes")
    axes = [axis % rank for axis in attribute(node, "axes", range(rank))]
    scales, sizes = optional_array(node, 2), optional_array(node, 3)
    after = extents(node.outputs[0]) or ()
    resized = data
    for position, axis in enumerate(axes):
        scale = None if scales is None else float(scales[position])
        if scale == 1 or (axis == 0 and sizes is not None):
            continue
        before = extent_of(data, axis, node)
        if after[axis] != before or scale is not None:
            resized = along_axis(emit, resized, _resizing(node, before, after[axis], scale), axis, rank)
    return resized


def _resizing(node: ir.Node, before: int, after: int | None, scale: float | None) -> NDArray[np.float32]:
    """Resize the rows of an identity, with the node's own settings."""
    kept = {name: value for name, value in node.attributes.items() if name != "axes"}
    single = ir.Node(
        "", "Resize", [ir.Value(name=name) for name in ("x", "", "scales", "sizes")], kept.values(),
        outputs=[ir.Value(name="y")],
    )  # fmt: skip
    proto = ir.to_proto(single)
    arrays = (
        {"scales": [1, 1, 1, scale], "sizes": None}
        if scale is not None
        else {"scales": None, "sizes": [1, 1, before, after]}
    )
    kinds = {"scales": np.float32, "sizes": np.int64}
    for index, name in ((2, "scales"), (3, "sizes")):
        proto.input[index] = name if arrays[name] is not None else ""
    given = [
        onnx.numpy_helper.from_array(np.array(array, kinds[name]), name)
        for name, array in arrays.items()
        if array is not None
    ]
    shown = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1, before, width])
        for name, width in (("x", before), ("y", None))
    ]
    graph = onnx.helper.make_graph([proto], "resizing", shown[:1], shown[1:], given)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    rows = open_session(model.SerializeToString()).run(None, {"x": np.eye(before, dtype=np.float32)[None, None]})[0]
    return np.asarray(rows[0, 0], dtype=np.float32)


def pad(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """Pad by reflection, edge or wrap = Gather of the positions repeated; by a constant = Pad over all axes."""
    data, rank, mode = node.inputs[0], rank_of(node.inputs[0], node), attribute(node, "mode", "constant")
    if mode == "constant" and input_of(node, 3) is None:
        return None
    axes = optional_array(node, 3)
    axes = np.arange(rank) if axes is None else axes % rank
    amounts = array_of(node.inputs[1], node)
    begin, end = np.zeros(rank, int), np.zeros(rank, int)
    begin[axes], end[axes] = np.split(amounts, 2)
    if mode == "constant":
        return emit("Pad", data, emit.integers(*begin, *end), input_of(node, 2), mode="constant")
    padded = data
    for axis in np.flatnonzero(begin.astype(bool) | end.astype(bool)):
        positions = np.arange(extent_of(data, int(axis), node))
        kept = positions[max(0, -begin[axis]) : len(positions) + min(0, end[axis])]
        repeated = np.pad(kept, (max(0, begin[axis]), max(0, end[axis])), mode=mode)
        padded = emit("Gather", padded, emit.integers(*repeated), axis=int(axis))
    return padded


def cum_sum(node: ir.Node, emit: Emitter) -> ir.Value:
    """CumSum(x) along an axis = x times a triangle of ones."""
    data, rank = node.inputs[0], rank_of(node.inputs[0], node)
    axis = int(array_of(node.inputs[1], node).reshape(())) % rank
    length = extent_of(data, axis, node)
    triangle = np.triu(np.ones((length, length)), k=attribute(node, "exclusive", 0))
    return along_axis(emit, data, triangle.T if attribute(node, "reverse", 0) else triangle, axis, rank)


def depth_to_space(node: ir.Node, emit: Emitter) -> ir.Value:
    """DepthToSpace = Reshape, Transpose, Reshape."""
    channels, block = channels_of(node.inputs[0], node), attribute(node, "blocksize", 1)
    height, width = spatial_of(node.inputs[0], node)
    depth = channels // block**2
    if attribute(node, "mode", "DCR") == "DCR":
        split, order = (block, block, depth), [0, 3, 4, 1, 5, 2]
    else:
        split, order = (depth, block, block), [0, 1, 4, 2, 5, 3]
    tall = emit("Reshape", node.inputs[0], emit.integers(0, *split, height, width))
    return emit("Reshape", emit("Transpose", tall, perm=order), emit.integers(0, depth, height * block, width * block))


def space_to_depth(node: ir.Node, emit: Emitter) -> ir.Value:
    """SpaceToDepth = Reshape, Transpose, Reshape."""
    channels, block = channels_of(node.inputs[0], node), attribute(node, "blocksize", 1)
    height, width = (extent // block for extent in spatial_of(node.inputs[0], node))
    tall = emit("Reshape", node.inputs[0], emit.integers(0, channels, height, block, width, block))
    moved = emit("Transpose", tall, perm=[0, 3, 5, 1, 2, 4])
    return emit("Reshape", moved, emit.integers(0, channels * block**2, height, width))
