"""Pass 1: any classifier into the dialect that the later passes know.

Requires: a checked model. Ensures: one graph without functions, opset `OPSET`, a symbolic batch dimension, constants as
initializers, no Identity or Dropout, explicit pads, shapes inferred.
"""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from onnx import ModelProto, version_converter

from gradscore.errors import ModelError, UnsupportedOpError
from gradscore.graph.emitter import attribute, extents

OPSET = 18
IR_VERSION = 10
_OLDEST_OPSET = 7
_DEFAULT_DOMAINS = ("", "ai.onnx")
_BATCH = "batch"


def normalize(proto: ModelProto) -> ir.Model:
    """Bring a classifier into the pipeline's dialect.

    Raises
    ------
    ModelError
        The opset is out of range, or the graph cannot be expressed in opset `OPSET`.
    UnsupportedOpError
        A node is of a custom domain or holds a subgraph.
    """
    model = ir.from_proto(_to_opset(proto))
    common_passes.InlinePass()(model)
    for domain in [key for key in model.graph.opset_imports if key not in _DEFAULT_DOMAINS]:
        del model.graph.opset_imports[domain]
    _refuse_foreign_nodes(model.graph)
    model.ir_version = IR_VERSION
    common_passes.RemoveInitializersFromInputsPass()(model)
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for node in list(model.graph):
        if (rule := RULES.get(node.op_type)) is not None:
            rule(node)
    common_passes.RemoveUnusedNodesPass()(model)
    _free_batch_dimension(model.graph)
    return infer_shapes(model)


def infer_shapes(model: ir.Model) -> ir.Model:
    """Return the model with the shape of every value inferred from its inputs' shapes."""
    common_passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    for node in model.graph:
        if (rule := SHAPED_RULES.get(node.op_type)) is not None:
            rule(node)
    return model


def _to_opset(proto: ModelProto) -> ModelProto:
    version = next((entry.version for entry in proto.opset_import if entry.domain in _DEFAULT_DOMAINS), None)
    if version is None or version < _OLDEST_OPSET:
        raise ModelError(f"the model's opset is {version}, this needs {_OLDEST_OPSET} or newer: export it again")
    if version < OPSET:
        return version_converter.convert_version(proto, OPSET)
    if version > OPSET:
        return _relabel(proto, version)
    return proto


def _relabel(proto: ModelProto, version: int) -> ModelProto:
    """Declare a newer model to be of opset `OPSET`; most operators only gained types since, the checker finds the rest."""
    older = ModelProto()
    older.CopyFrom(proto)
    older.ir_version = IR_VERSION
    for entry in older.opset_import:
        if entry.domain in _DEFAULT_DOMAINS:
            entry.version = OPSET
    try:
        onnx.checker.check_model(older)
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"the model's opset {version} cannot be lowered to {OPSET} ({reason}): export it with opset_version={OPSET}"
        ) from error
    return older


def _refuse_foreign_nodes(graph: ir.Graph) -> None:
    for node in graph:
        if node.domain not in _DEFAULT_DOMAINS:
            raise UnsupportedOpError(
                f"node {node.name!r} is {node.domain}.{node.op_type}, of a custom domain: export the model with standard operators only"
            )
        if any(isinstance(value, ir.Attr) and value.type in _SUBGRAPHS for value in node.attributes.values()):
            raise UnsupportedOpError(
                f"node {node.name!r} ({node.op_type}) has a subgraph: export the model without data-dependent control flow"
            )


_SUBGRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _free_batch_dimension(graph: ir.Graph) -> None:
    """Make the first dimension of every input symbolic, and forget the shapes that followed from a fixed one."""
    for value in graph.inputs:
        if value.shape is None or not value.shape:
            raise ModelError(f"input {value.name!r} has no batch dimension: export the model with a batched input")
        value.shape = ir.Shape([_BATCH, *value.shape[1:]])
    for node in graph:
        for value in node.outputs:
            value.shape = None


def _see_through(node: ir.Node) -> None:
    """Identity(x), Dropout(x) at inference -> x."""
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise UnsupportedOpError(f"node {node.name!r}: the mask of a Dropout is used; export the model in eval mode")
    source, output = node.inputs[0], node.outputs[0]
    if source is None or node.graph is None:
        return
    if output.is_graph_output() and (source.is_graph_input() or source.is_initializer() or source.is_graph_output()):
        return
    name = output.name if output.is_graph_output() else None
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    if name is not None:
        output.name, source.name = f"{name}/seen_through", name
    node.graph.remove(node, safe=True)


def _explicit_pads(node: ir.Node) -> None:
    """auto_pad=SAME_UPPER|SAME_LOWER|VALID -> pads, from the input's static extents."""
    auto_pad = attribute(node, "auto_pad", "NOTSET")
    if auto_pad == "NOTSET":
        return
    rank, kernel = _window(node)
    strides, dilations = attribute(node, "strides", [1] * rank), attribute(node, "dilations", [1] * rank)
    pads = [0] * (2 * rank)
    if auto_pad != "VALID":
        shape = extents(node.inputs[0])
        if shape is None or None in shape[2:]:
            raise UnsupportedOpError(
                f"node {node.name!r} ({node.op_type}) has auto_pad={auto_pad} on an input of unknown size: export it with fixed size"
            )
        for axis, size in enumerate(shape[2:]):
            total = max(0, (-(-size // strides[axis]) - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1 - size)
            small, large = total // 2, total - total // 2
            pads[axis], pads[axis + rank] = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
    del node.attributes["auto_pad"]
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)


def _window(node: ir.Node) -> tuple[int, list[int]]:
    kernel = attribute(node, "kernel_shape", None)
    if kernel is None:
        weight = extents(node.inputs[1])
        if weight is None or None in weight:
            raise UnsupportedOpError(f"node {node.name!r} ({node.op_type}) has a kernel of unknown size")
        kernel = [int(size) for size in weight[2:] if size is not None]
    return len(kernel), kernel


def _kernel_shape(node: ir.Node) -> None:
    """Conv without kernel_shape -> with it, and pads explicit."""
    _, kernel = _window(node)
    node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", kernel)
    _explicit_pads(node)


RULES: dict[str, Callable[[ir.Node], None]] = {
    "Dropout": _see_through,
    "Identity": _see_through,
}

SHAPED_RULES: dict[str, Callable[[ir.Node], None]] = {
    "AveragePool": _explicit_pads,
    "Conv": _kernel_shape,
    "MaxPool": _explicit_pads,
}


def constant_value(value: ir.Value | None) -> np.ndarray | None:
    """Return the array behind an initializer, None for anything computed."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()
