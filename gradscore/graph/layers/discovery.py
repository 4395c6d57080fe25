"""Pass 3: find the layers with weights, and the form of each parameter's per-sample gradient.

Requires: a normalised graph with inferred shapes, cut at the logits. Ensures: every floating-point parameter belongs to
a layer, or is reported as uncovered; nothing is skipped silently.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import onnx_ir as ir

from gradscore.errors import ModelError
from gradscore.graph.layers.forms import ChannelSum, Dense, Form, Scope, Whole
from gradscore.graph.layers.layer_rules import LAYER_RULES
from gradscore.graph.layers.learned import depends_on_weights, is_learned
from gradscore.graph.nodes.emitter import extents, origin_of
from gradscore.graph.nodes.naming import layer_names
from gradscore.model.layer_table import Layer, Parameter
from gradscore.model.metadata import ALL_LAYERS, HEAD_FEATURES


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
        """Return the parameters' original names; parts of one tensor get names of their own."""
        names = [origin_of(found.value) for found in self.parameters]
        return [
            name if names.count(name) == 1 else str(found.value.name)
            for name, found in zip(names, self.parameters, strict=True)
        ]

    def finished(self, scope: Scope) -> Layer:
        """Return the layer's record for the metadata; `scope` is the differentiated graph."""
        return Layer(
            name=self.name,
            op=self.op,
            parameters=tuple(
                replace(_parameter(found.value, found.form.coverage), name=name)
                for name, found in zip(self._parameter_names(), self.parameters, strict=True)
            ),
            reductions=tuple(found.form.reduction(scope) for found in self.parameters),
        )


def find_layers(
    graph: ir.Graph, *, allow_uncovered: bool = False
) -> tuple[tuple[FoundLayer, ...], tuple[Parameter, ...]]:
    """Return the layers in graph order, and the parameters left out.

    A parameter that no rule covers is differentiated as a whole, one sample at a time. With `allow_uncovered`, it is
    left out instead.

    Raises
    ------
    ModelError
        The model has no weights.
    """
    found = [
        FoundParameter(value, node, form)
        for node in graph
        if (rule := LAYER_RULES.get(node.op_type)) is not None
        for value, form in rule.find(node)
    ]
    uncovered = list(_uncovered(graph, found))
    refused = {value.name for value in uncovered}
    covered = [parameter for parameter in _joined(found) if parameter.value.name not in refused]
    if not allow_uncovered:
        covered += [FoundParameter(value, next(iter(value.uses())).node, Whole(value)) for value in uncovered]
    if not covered:
        raise ModelError(
            "the model has no layer with weights, so there is no gradient to score by: give a trained classifier"
        )
    return _grouped(covered), tuple(_parameter(value, "uncovered") for value in uncovered) if allow_uncovered else ()


def _joined(found: list[FoundParameter]) -> list[FoundParameter]:
    """Merge the uses of each parameter into one; their gradients add up over positions."""
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
    """Yield each learned initializer that has a use which no rule covers."""
    by_name = _by_parameter(found)
    for name, value in graph.initializers.items():
        uses = [use for use in value.uses() if _matters(use.node, use.idx)]
        own = by_name.get(name, [])
        if uses and is_learned(value) and (len(own) != len(uses) or not _can_join(own)):
            yield value


def _matters(user: ir.Node, index: int) -> bool:
    """Tell whether a use can carry gradient.

    A constant that is applied to the input before the first weight is preprocessing.
    """
    if user.op_type in _ELEMENTWISE:
        others = [value for position, value in enumerate(user.inputs) if position != index and value is not None]
        return any(depends_on_weights(value) for value in others)
    return user.op_type not in _SHAPE_READERS


_ELEMENTWISE = ("Add", "Div", "Mul", "Sub")
_SHAPE_READERS = ("Shape", "Size", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")


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
