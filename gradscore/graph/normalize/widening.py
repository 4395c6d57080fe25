"""Half precision widened: whatever a classifier computes in float16 or bfloat16 is computed in float32 from here on.

Ensures: no half-precision value but the inputs and outputs that the classifier declares so, each with a Cast beside it.
Widening a weight is exact; the outputs differ from the classifier's own by its rounding. Gradients need the range: half of
a confident classifier's underflow in float16.
"""

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.emitter import Emitter

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_TYPE_ATTRIBUTES = ("dtype", "to")


def widen(model: ir.Model) -> None:
    """Rewrite a model without subgraphs, in place."""
    graph = model.graph
    outputs = {value: value.dtype for value in graph.outputs if value.dtype in HALVES}
    for value in graph.initializers.values():
        if value.dtype in HALVES and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.type = ir.TensorType(ir.DataType.FLOAT)
    for node in list(graph):
        _widen_attributes(node)
        for value in node.outputs:
            if value.dtype in HALVES:
                value.type = ir.TensorType(ir.DataType.FLOAT)
    for value in graph.inputs:
        if value.dtype in HALVES:
            _cast_input(graph, value)
    for value, kind in outputs.items():
        if value.producer() is not None and kind is not None:
            _cast_output(graph, value, kind)


def _widen_attributes(node: ir.Node) -> None:
    for name, item in list(node.attributes.items()):
        if name in _TYPE_ATTRIBUTES and item.type == ir.AttributeType.INT and item.value in HALVES:
            node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)
        if item.type == ir.AttributeType.TENSOR and item.value.dtype in HALVES:
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(item.value.numpy().astype(np.float32)))


def _cast_input(graph: ir.Graph, value: ir.Value) -> None:
    uses = list(value.uses())
    if not uses:
        return
    anchor = next(node for node in graph if value in node.inputs)
    wide = Emitter(graph, "widening", anchor, about=str(value.name))("Cast", value, to=ir.DataType.FLOAT.value)
    wide.type, wide.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
    for use in uses:
        use.node.replace_input_with(use.idx, wide)


def _cast_output(graph: ir.Graph, value: ir.Value, kind: ir.DataType) -> None:
    name, value.name = value.name, f"{value.name}/wide"
    narrow = Emitter(graph, "widening", about=str(name))("Cast", value, to=kind.value)
    narrow.name, narrow.type, narrow.shape = name, ir.TensorType(kind), value.shape
    position = list(graph.outputs).index(value)
    graph.outputs[position] = narrow
