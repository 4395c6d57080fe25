"""What a graph costs: nodes, bytes of weights, and floating-point operations for one sample."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from gradscore.graph.emitter import attribute, extents
from gradscore.graph.probing import random_input
from gradscore.graph.running import run_graph
from gradscore.metadata import InputTensor

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Cost:
    """Size and work of a graph.

    Attributes
    ----------
    nodes
        Number of nodes.
    weight_bytes
        Bytes of all initializers.
    flops
        Operations for one sample: two for each multiplication with addition in products and convolutions, one for each
        number that any other operator computes, none for moving numbers about.
    """

    nodes: int
    weight_bytes: int
    flops: int


def costs(model: ir.Model, own: tuple[str, ...], inputs: tuple[InputTensor, ...]) -> tuple[Cost, Cost]:
    """Return the cost of a graph as it is, and of as much of it as its outputs `own` need."""
    part = model.clone()
    kept = [value for value in part.graph.outputs if value.name in own]
    part.graph.outputs.clear()
    part.graph.outputs.extend(kept)
    common_passes.RemoveUnusedNodesPass()(part)
    shapes = _shapes(model, inputs)
    return _cost(model.graph, shapes), _cost(part.graph, shapes)


def _shapes(model: ir.Model, inputs: tuple[InputTensor, ...]) -> Shapes:
    """Run the graph on one sample: every value's shape, exactly."""
    names = [str(value.name) for node in model.graph for value in node.outputs if _is_read(value)]
    batch = {item.name: random_input(item.shape, np.dtype(item.dtype), 1) for item in inputs}
    (values,) = run_graph(model, names, [batch])
    found = {name: value.shape for name, value in zip(names, values, strict=True)}
    found |= {name: array.shape for name, array in batch.items()}
    return found | {name: tuple(extents(value) or ()) for name, value in model.graph.initializers.items()}


def _is_read(value: ir.Value) -> bool:
    return bool(value.name) and (bool(value.uses()) or value.is_graph_output())


def _cost(graph: ir.Graph, shapes: Shapes) -> Cost:
    nodes = list(graph)
    tensors = (value.const_value for value in graph.initializers.values())
    return Cost(
        len(nodes),
        sum(tensor.nbytes for tensor in tensors if tensor is not None),
        sum(_WORK.get(node.op_type, _each_number)(node, shapes) for node in nodes),
    )


def _shape(value: ir.Value | None, shapes: Shapes) -> tuple[int, ...]:
    return shapes.get(str(value.name), ()) if value is not None else ()


def _each_number(node: ir.Node, shapes: Shapes) -> int:
    """One operation a number read or written, whichever are more: a reduction reads what it reduces."""
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
    "Range", "Reshape", "ScatterElements", "ScatterND", "Shape", "Size", "Slice", "Split", "Squeeze", "Tile", "Transpose",
    "Unsqueeze",
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
