"""Pass 3: find the layers with weights, and the form of each parameter's per-sample gradient.

Requires: a normalised graph with inferred shapes, cut at the logits. Ensures: every floating-point parameter stands in a
layer, or is reported as uncovered; nothing is skipped silently.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from gradscore.errors import ModelError
from gradscore.graph.emitter import ORIGIN_KEY, attribute, extents, is_constant, origin_of
from gradscore.graph.forms import Broadcast, ChannelSum, Convolution, Dense, Embedding, Form, Repeated, Scope, Whole
from gradscore.graph.naming import PARAMETER_ENDINGS, layer_names
from gradscore.metadata import ALL_LAYERS, HEAD_FEATURES, Layer, Parameter

_MASKED = -1e4  # additive attention masks hold values below this; no learned weight does


@dataclass(frozen=True)
class FoundParameter:
    """One use of a learned tensor by a node, and the form of its gradient there."""

    value: ir.Value
    node: ir.Node
    form: Form


@dataclass(frozen=True)
class FoundLayer:
    """A layer in the graph: its name, operator and parameters."""

    name: str
    op: str
    parameters: tuple[FoundParameter, ...]

    @property
    def outputs(self) -> Iterator[ir.Value]:
        """The values whose gradients the layer's forms need."""
        return (output for parameter in self.parameters for output in parameter.form.outputs)

    def _parameter_names(self) -> list[str]:
        """Return the names under which the model brought them; parts of one tensor have names of their own."""
        names = [origin_of(found.value) for found in self.parameters]
        return [
            name if names.count(name) == 1 else str(found.value.name)
            for name, found in zip(names, self.parameters, strict=True)
        ]

    def finished(self, scope: Scope) -> Layer:
        """Return the layer's record for the metadata, on the differentiated graph."""
        return Layer(
            name=self.name,
            op=self.op,
            parameters=tuple(
                replace(_parameter(found.value, found.form.coverage), name=name)
                for name, found in zip(self._parameter_names(), self.parameters, strict=True)
            ),
            reductions=tuple(found.form.reduction(scope) for found in self.parameters),
        )


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
        if _learned(weight) and len(extents(weight) or ()) == 2 and len(extents(data) or ()) > 1:
            yield weight, Dense(((data, node.outputs[0]),))


class GemmRule(LayerRule):
    """A dense layer with its bias; the kernel stands as [n, m], or as [m, n] with transB."""

    op_type = "Gemm"

    def find(self, node: ir.Node) -> Iterable[tuple[ir.Value, Form]]:
        data, weight = _inputs(node, 2)
        output = node.outputs[0]
        if _learned(weight):
            yield weight, Dense(((data, output),), outputs_first=bool(attribute(node, "transB", 0)))
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None and _learned(bias):
            yield bias, ChannelSum((output,), channels_last=True)


class GatherRule(LayerRule):
    """An embedding: rows of a table by token id."""

    op_type = "Gather"

    def find(self, node: ir.Node) -> Iterable[tuple[ir.Value, Form]]:
        table, ids = _inputs(node, 2)
        shape = extents(table) or ()
        if _learned(table) and attribute(node, "axis", 0) == 0 and len(shape) == 2:
            yield table, Embedding(ids, node.outputs[0], int(shape[0] or 0))


class BroadcastRule(LayerRule):
    """A learned constant that meets data element by element: biases, norm scales, layer scale, position embeddings."""

    def __init__(self, op_type: str) -> None:
        self.op_type = op_type

    def find(self, node: ir.Node) -> Iterable[tuple[ir.Value, Form]]:
        output, inputs = node.outputs[0], _inputs(node, 2)
        for index, value in enumerate(inputs):
            if not _learned(value) or not _depends_on_weights(inputs[1 - index]):
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
        if _learned(value):
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


def find_layers(
    graph: ir.Graph, *, allow_uncovered: bool = False
) -> tuple[tuple[FoundLayer, ...], tuple[Parameter, ...]]:
    """Return the layers in graph order, and the parameters left out.

    What no rule covers is differentiated whole, one sample at a time; with `allow_uncovered` it is left out instead.

    Raises
    ------
    ModelError
        The model has no weights.
    """
    found = [
        FoundParameter(value, node, form)
        for node in graph
        if (rule := RULES.get(node.op_type)) is not None
        for value, form in rule.find(node)
    ]
    uncovered = list(_uncovered(graph, found))
    refused = {value.name for value in uncovered}
    covered = [parameter for parameter in _joined(found) if parameter.value.name not in refused]
    if not allow_uncovered:
        covered += [FoundParameter(value, next(iter(value.uses())).node, Whole(value)) for value in uncovered]
    if not covered:
        raise ModelError(
            "the model has no layer with weights, so its gradient says nothing: is this a trained classifier?"
        )
    return _grouped(covered), tuple(_parameter(value, "uncovered") for value in uncovered) if allow_uncovered else ()


def _kernel(node: ir.Node, *, transposed: bool) -> Iterator[tuple[ir.Value, Form]]:
    data, weight, *bias = [value for value in node.inputs if value is not None]
    output, rank = node.outputs[0], len(attribute(node, "kernel_shape", []))
    if _learned(weight):
        geometry = {
            "kernel": attribute(node, "kernel_shape", []),
            "strides": attribute(node, "strides", [1] * rank),
            "dilations": attribute(node, "dilations", [1] * rank),
            "pads": attribute(node, "pads", [0] * (2 * rank)),
            "groups": attribute(node, "group", 1),
        }
        yield weight, Convolution(data, output, geometry, transposed)
    if bias and _learned(bias[0]):
        yield bias[0], ChannelSum((output,), channels_last=False)


def _joined(found: list[FoundParameter]) -> list[FoundParameter]:
    """Make one of a parameter's several uses, where their gradients add up position by position."""
    return [_one(uses) for uses in _by_parameter(found).values()]


def _by_parameter(found: list[FoundParameter]) -> dict[str, list[FoundParameter]]:
    """Gather the uses of each parameter."""
    by_name: dict[str, list[FoundParameter]] = {}
    for parameter in found:
        by_name.setdefault(str(parameter.value.name), []).append(parameter)
    return by_name


def _one(uses: list[FoundParameter]) -> FoundParameter:
    first = uses[0]
    if len(uses) == 1:
        return first
    forms = [use.form for use in uses]
    dense = [form for form in forms if isinstance(form, Dense)]
    if dense:
        return FoundParameter(
            first.value, first.node, Dense(tuple(use for form in dense for use in form.uses), dense[0].outputs_first)
        )
    outputs = tuple(output for form in forms for output in form.outputs)
    return FoundParameter(first.value, first.node, ChannelSum(outputs, channels_last=True))


def _can_join(uses: list[FoundParameter]) -> bool:
    forms = [use.form for use in uses]
    return (
        len(forms) == 1
        or (
            all(isinstance(form, Dense) for form in forms)
            and len({form.outputs_first for form in forms if isinstance(form, Dense)}) == 1
        )
        or all(isinstance(form, ChannelSum) and form.channels_last for form in forms)
    )


def _uncovered(graph: ir.Graph, found: list[FoundParameter]) -> Iterable[ir.Value]:
    """Yield each learned initializer that some use is not covered for."""
    by_name = _by_parameter(found)
    for name, value in graph.initializers.items():
        uses = [use for use in value.uses() if _matters(use.node, use.idx)]
        own = by_name.get(name, [])
        if uses and _learned(value) and (len(own) != len(uses) or not _can_join(own)):
            yield value


def _matters(user: ir.Node, index: int) -> bool:
    """Tell whether a use can carry gradient; a constant that only meets the input before the first weight is preprocessing."""
    if user.op_type in _ELEMENTWISE:
        others = [value for position, value in enumerate(user.inputs) if position != index and value is not None]
        return any(_depends_on_weights(value) for value in others)
    return user.op_type not in _SHAPE_READERS


_ELEMENTWISE = ("Add", "Div", "Mul", "Sub")
_SHAPE_READERS = ("Shape", "Size", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")


def _depends_on_weights(value: ir.Value) -> bool:
    """Tell whether a value was computed with some weight: only then is a constant beside it a layer of the network."""
    seen, waiting = set(), [value]
    while waiting:
        node = waiting.pop().producer()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        inputs = [item for item in node.inputs if item is not None]
        if node.op_type in _WEIGHTED and any(_learned(item) for item in inputs):
            return True
        waiting.extend(inputs)
    return False


_WEIGHTED = ("Conv", "ConvTranspose", "Gather", "Gemm", "MatMul")


def _is_a_layers_own(value: ir.Value) -> bool:
    """Tell whether a single number is learned: it is called so, or stands where a layer's kernel or bias does."""
    named = origin_of(value).endswith(PARAMETER_ENDINGS) or ORIGIN_KEY in value.metadata_props
    return named or any(use.node.op_type in _WEIGHTED for use in value.uses())


def _learned(value: ir.Value) -> bool:
    """Tell whether a value is a floating-point initializer that training can have set."""
    if not value.is_initializer() or value.dtype is None or not value.dtype.is_floating_point() or is_constant(value):
        return False
    tensor = value.const_value
    if tensor is None or tensor.size == 0:
        return False
    return (tensor.size > 1 or _is_a_layers_own(value)) and not (
        tensor.size <= _LARGEST_MASK and float(np.min(tensor.numpy())) < _MASKED
    )


_LARGEST_MASK = 1 << 24


def _inputs(node: ir.Node, count: int) -> tuple[ir.Value, ...]:
    values = node.inputs[:count]
    if len(values) < count or any(value is None for value in values):
        raise ModelError(f"node {node.name!r} ({node.op_type}) lacks an input")
    return tuple(value for value in values if value is not None)


def _last(value: ir.Value) -> int | None:
    shape = extents(value)
    return shape[-1] if shape else None


def _parameter(value: ir.Value, coverage: str) -> Parameter:
    return Parameter(origin_of(value), tuple(int(extent or 0) for extent in extents(value) or ()), coverage)


def _grouped(found: list[FoundParameter]) -> tuple[FoundLayer, ...]:
    """Join the parameters of one layer, in graph order, under the layer's name."""
    layers: dict[str, list[FoundParameter]] = {}
    names = layer_names([(parameter.value, parameter.node) for parameter in found])
    for name, parameter in zip(names, found, strict=True):
        layers.setdefault(name, []).append(parameter)
    reserved = {ALL_LAYERS, *HEAD_FEATURES}
    return tuple(
        FoundLayer(f"{name}_layer" if name in reserved else name, parameters[0].node.op_type, tuple(parameters))
        for name, parameters in layers.items()
    )
