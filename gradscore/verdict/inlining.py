"""Inlining of a verdict into another graph, with only the features that it reads."""

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from gradscore.verdict.learning.verdict_graph import selected, selection
from gradscore.verdict.model import Verdict

_PREFIX = "verdict/"


def used_features(verdict: Verdict) -> tuple[str, ...]:
    """Return the names of the features that P(correct) depends on, in the verdict's order."""
    return tuple(verdict.feature_names[column] for column in sorted(set(selected(verdict.proto.graph).tolist())))


def inline_verdict(graph: ir.Graph, verdict: Verdict, features: ir.Value) -> dict[str, ir.Value]:
    """Append a verdict to a graph and return its outputs by name, each double [B].

    Parameters
    ----------
    graph
        The graph to extend.
    verdict
        The verdict whose nodes are copied.
    features
        Double [B, K], the features of `used_features` in their order. If one of a row is NaN, its P(correct) is NaN.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(verdict.proto)
    columns = selected(proto.graph)
    place = {column: index for index, column in enumerate(sorted(set(columns.tolist())))}
    compact = np.array([place[column] for column in columns.tolist()], dtype=np.int64)
    selection(proto.graph).CopyFrom(numpy_helper.from_array(compact, selection(proto.graph).name))
    source = ir.from_proto(proto).graph
    if compact.tolist() == list(range(len(place))):
        _skip_selection(source)
    source.inputs[0].replace_all_uses_with(features)
    _axes_as_inputs(source)
    for value in source.initializers.values():
        constant = ir.Value(
            name=f"{_PREFIX}{value.name}", shape=value.shape, type=value.type, const_value=value.const_value
        )
        graph.register_initializer(constant)
        value.replace_all_uses_with(constant)
    results = {str(value.name): value for value in source.outputs}
    source.outputs.clear()
    nodes = list(source)
    source.remove(nodes)
    for node in nodes:
        node.name = f"{_PREFIX}{node.name}"
        for value in node.outputs:
            value.name = f"{_PREFIX}{value.name}"
    graph.extend(nodes)
    return results


def _axes_as_inputs(source: ir.Graph) -> None:
    """Turn the axes of ReduceMin into an input, as opset 18 of the other graph wants them; a verdict has opset 17."""
    for number, node in enumerate(source):
        if node.op_type == "ReduceMin" and (axes := node.attributes.pop("axes", None)) is not None:
            name = f"axes_{number}"
            tensor = ir.tensor(np.array(axes.as_ints(), dtype=np.int64), name=name)
            value = ir.Value(
                name=name, shape=ir.Shape(tensor.numpy().shape), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
            source.register_initializer(value)
            node.resize_inputs(2)
            node.replace_input_with(1, value)


def _skip_selection(source: ir.Graph) -> None:
    """Remove the selection of columns, for a verdict that takes every feature in order."""
    for node in list(source):
        if node.op_type == "Gather" and node.inputs[0] is source.inputs[0]:
            node.outputs[0].replace_all_uses_with(source.inputs[0])
            source.remove(node, safe=True)
            return
