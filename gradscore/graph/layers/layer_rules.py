"""Which inputs of each operator are learned, and the form of their per-sample gradients: one rule an operator."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import onnx_ir as ir

from gradscore.errors import ModelError
from gradscore.graph.layers.forms import Broadcast, ChannelSum, Convolution, Dense, Embedding, Form, Repeated
from gradscore.graph.layers.learned import depends_on_weights, is_learned
from gradscore.graph.nodes.emitter import attribute, extents


class LayerRule(ABC):
    """Which inputs of one operator are learned, and the form of their gradients."""

    op_type: str

    @abstractmethod
    def find(self, node: ir.Node) -> Iterable[tuple[ir.Value, Form]]:
        """Yield each learned input with its form."""


class ConvRule(LayerRule):
    """Kernel and bias of a convolution."""

    op_type = "Conv"

    def find(self, node: ir.Node) -> Iterable[tuple[ir.Value, Form]]:
        yield from _kernel(node, transposed=False)


class ConvTransposeRule(LayerRule):
    """Kernel and bias of a transposed convolution: input and δ swap roles."""

    op_type = "ConvTranspose"

    def find(self, node: ir.Node) -> Iterable[tuple[ir.Value, Form]]:
        yield from _kernel(node, transposed=True)


class MatMulRule(LayerRule):
    """A dense layer over any leading dimensions; a bias added right after is found by the Add."""

    op_type = "MatMul"

    def find(self, node: ir.Node) -> Iterable[tuple[ir.Value, Form]]:
        data, weight = _inputs(node, 2)
        if is_learned(weight) and len(extents(weight) or ()) == 2 and len(extents(data) or ()) > 1:
            yield weight, Dense(((data, node.outputs[0]),))


class GemmRule(LayerRule):
    """A dense layer with its bias; the kernel stands as [n, m], or as [m, n] with transB."""

    op_type = "Gemm"

    def find(self, node: ir.Node) -> Iterable[tuple[ir.Value, Form]]:
        data, weight = _inputs(node, 2)
        output = node.outputs[0]
        if is_learned(weight):
            yield weight, Dense(((data, output),), outputs_first=bool(attribute(node, "transB", 0)))
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None and is_learned(bias):
            yield bias, ChannelSum((output,), channels_last=True)


class GatherRule(LayerRule):
    """An embedding: rows of a table by token id."""

    op_type = "Gather"

    def find(self, node: ir.Node) -> Iterable[tuple[ir.Value, Form]]:
        table, ids = _inputs(node, 2)
        shape = extents(table) or ()
        if is_learned(table) and attribute(node, "axis", 0) == 0 and len(shape) == 2:
            yield table, Embedding(ids, node.outputs[0], int(shape[0] or 0))


class BroadcastRule(LayerRule):
    """A learned constant that meets data element by element: biases, norm scales, layer scale, position embeddings."""

    def __init__(self, op_type: str) -> None:
        self.op_type = op_type

    def find(self, node: ir.Node) -> Iterable[tuple[ir.Value, Form]]:
        output, inputs = node.outputs[0], _inputs(node, 2)
        for index, value in enumerate(inputs):
            if not is_learned(value) or not depends_on_weights(inputs[1 - index]):
                continue
            shape = extents(value) or ()
            if self.op_type == "Add" and len(shape) == 1 and _last(output) == shape[0]:
                yield value, ChannelSum((output,), channels_last=True)
            else:
                expanded = ir.Value(name=f"{value.name}/expanded", type=value.type, shape=output.shape)
                yield value, Broadcast(value, expanded, node, index)


class ExpandRule(LayerRule):
    """A learned tensor that the graph repeats for every sample, such as a class token."""

    op_type = "Expand"

    def find(self, node: ir.Node) -> Iterable[tuple[ir.Value, Form]]:
        value = _inputs(node, 2)[0]
        if is_learned(value):
            yield value, Repeated(value, node.outputs[0])


RULES: dict[str, LayerRule] = {
    rule.op_type: rule
    for rule in (
        BroadcastRule("Add"),
        BroadcastRule("Div"),
        BroadcastRule("Mul"),
        BroadcastRule("Sub"),
        ConvRule(),
        ConvTransposeRule(),
        ExpandRule(),
        GatherRule(),
        GemmRule(),
        MatMulRule(),
    )
}


def _kernel(node: ir.Node, *, transposed: bool) -> Iterator[tuple[ir.Value, Form]]:
    data, weight, *bias = [value for value in node.inputs if value is not None]
    output, rank = node.outputs[0], len(attribute(node, "kernel_shape", []))
    if is_learned(weight):
        geometry = {
            "kernel": attribute(node, "kernel_shape", []),
            "strides": attribute(node, "strides", [1] * rank),
            "dilations": attribute(node, "dilations", [1] * rank),
            "pads": attribute(node, "pads", [0] * (2 * rank)),
            "groups": attribute(node, "group", 1),
        }
        yield weight, Convolution(data, output, geometry, transposed)
    if bias and is_learned(bias[0]):
        yield bias[0], ChannelSum((output,), channels_last=False)


def _inputs(node: ir.Node, count: int) -> tuple[ir.Value, ...]:
    values = node.inputs[:count]
    if len(values) < count or any(value is None for value in values):
        raise ModelError(f"node {node.name!r} ({node.op_type}) lacks an input")
    return tuple(value for value in values if value is not None)


def _last(value: ir.Value) -> int | None:
    shape = extents(value)
    return shape[-1] if shape else None
