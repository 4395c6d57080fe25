"""Measures what a graph costs: nodes, bytes of weights, and floating-point operations for one sample."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from numpy.typing import NDArray

from gradscore.graph.nodes.emitter import attribute, extents
from gradscore.graph.nodes.probing import random_input
from gradscore.graph.nodes.running import run_graph
from gradscore.model.preprocessing import InputTensor

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class GraphCost:
    """Size and work of a graph.

    Attributes
    ----------
    nodes
        Number of nodes.
    weight_bytes
        Bytes of all initializers.
    flops
        Operations for one sample. In matrix products and convolutions, a multiply-add counts as two. A pool counts one
        for each number in each window. Operators that only move numbers count none. Any other operator counts one for
        each number that it reads or writes, whichever are more.
    """

    nodes: int
    weight_bytes: int
    flops: int


def costs(model: ir.Model, own: tuple[str, ...], inputs: tuple[InputTensor, ...]) -> tuple[GraphCost, GraphCost]:
    """Return the cost of the whole graph, and of the part that its outputs `own` need."""
    part = model.clone()
    kept = [value for value in part.graph.outputs if value.name in own]
    part.graph.outputs.clear()
    part.graph.outputs.extend(kept)
    common_passes.RemoveUnusedNodesPass()(part)
    shapes = _shapes(model, {item.name: random_input(item.shape, np.dtype(item.dtype), 1) for item in inputs})
    return _cost(model.graph, shapes), _cost(part.graph, shapes)


def _shapes(model: ir.Model, sample: Mapping[str, NDArray[Any]]) -> Shapes:
    """Return the exact shape of every value, found by running the graph on one sample."""
    names = [str(value.name) for node in model.graph for value in node.outputs if _is_read(value)]
    (values,) = run_graph(model, names, [sample])
    found = {name: value.shape for name, value in zip(names, values, strict=True)}
    found |= {name: array.shape for name, array in sample.items()}
    found |= {name: tuple(extents(value) or ()) for name, value in model.graph.initializers.items()}
    for node in model.graph:
        if node.op_type == "Scan":
            found |= _shapes_inside(node, found, model)
    return found


def _shapes_inside(node: ir.Node, found: Shapes, model: ir.Model) -> Shapes:
    """Return the shapes inside a Scan's body, found by running it on zeros shaped like one sample."""
    body = _body_of(node).clone()
    body.opset_imports.update(model.graph.opset_imports)
    sources = zip(body.inputs, node.inputs, strict=True)
    zeros = {str(value.name): np.zeros(found[str(source.name)][1:], np.float32) for value, source in sources if source}
    return _shapes(ir.Model(body, ir_version=model.ir_version), zeros)


def _body_of(node: ir.Node) -> ir.Graph:
    return node.attributes["body"].as_graph()


def _is_read(value: ir.Value) -> bool:
    return bool(value.name) and (bool(value.uses()) or value.is_graph_output())


def _cost(graph: ir.Graph, shapes: Shapes) -> GraphCost:
    nodes = list(graph)
    tensors = (value.const_value for value in graph.initializers.values())
    inside = [_cost(_body_of(node), shapes) for node in nodes if node.op_type == "Scan"]
    return GraphCost(
        len(nodes) + sum(cost.nodes for cost in inside),
        sum(tensor.nbytes for tensor in tensors if tensor is not None) + sum(cost.weight_bytes for cost in inside),
        sum(_WORK.get(node.op_type, _each_number)(node, shapes) for node in nodes) + sum(cost.flops for cost in inside),
    )


def _shape(value: ir.Value | None, shapes: Shapes) -> tuple[int, ...]:
    return shapes.get(str(value.name), ()) if value is not None else ()


def _each_number(node: ir.Node, shapes: Shapes) -> int:
    """Count one operation for each number read or written, whichever are more: a reduction reads more."""
    return max((prod(_shape(value, shapes)) for value in (*node.inputs, *node.outputs)), default=0)


def _convolution(node: ir.Node, shapes: Shapes) -> int:
    return 2 * prod(_shape(node.outputs[0], shapes)) * prod(_shape(node.inputs[1], shapes)[1:])


def _transposed_convolution(node: ir.Node, shapes: Shapes) -> int:
    return 2 * prod(_shape(node.inputs[0], shapes)) * prod(_shape(node.inputs[1], shapes)[1:])


def _product(node: ir.Node, shapes: Shapes) -> int:
    first = _shape(node.inputs[0], shapes)
    inner = first[0 if attribute(node, "transA", 0) else -1] if first else 1
    return 2 * prod(_shape(node.outputs[0], shapes)) * int(inner)


def _pool(node: ir.Node, shapes: Shapes) -> int:
    window: int = prod(attribute(node, "kernel_shape", [1]))
    return prod(_shape(node.outputs[0], shapes)) * window


def _nothing(node: ir.Node, shapes: Shapes) -> int:  # noqa: ARG001 - entries of the table share a signature
    return 0


_MOVES = (
    "Cast", "Concat", "ConstantOfShape", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad",
    "Range", "Reshape", "Scan", "ScatterElements", "ScatterND", "Shape", "Size", "Slice", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze",
)  # fmt: skip
_WORK: Mapping[str, Callable[[ir.Node, Shapes], int]] = {
    **dict.fromkeys(_MOVES, _nothing),
    "AveragePool": _pool,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Gemm": _product,
    "MatMul": _product,
    "MaxPool": _pool,
}
