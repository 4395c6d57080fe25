"""Pass 8a: append extra features of what layers take in: the ONNX form of `gradscore.scoring.activations`.

Requires: a scoring graph and its metadata. Ensures: the requested columns, in double precision. None is multiplied by
the residual. One rule a feature, in `RULES`, which has the names of `NAMES_OF`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from gradscore.graph.differentiate.gradient import values_of
from gradscore.graph.nodes.arithmetic import Number
from gradscore.graph.nodes.emitter import STATISTICS_RULE, Emitter, extents
from gradscore.graph.statistics.append import append_statistics
from gradscore.graph.statistics.gradients import Values, shape_of, single
from gradscore.graph.statistics.open_sizes import append_open_statistics
from gradscore.model.layer_inputs import (
    WIDEST,
    chosen_depths,
    columns_by_feature,
    inputs_of,
    logit_names,
    penultimate_names,
    penultimate_of,
    positions_of,
    projection,
)
from gradscore.model.layer_table import Layer, Parameter, Reduction
from gradscore.model.metadata import ACTIVATION, LAYER_STATISTICS, ModelMetadata

_Inputs = tuple[str, ...]


@dataclass(frozen=True)
class ColumnBlock:
    """Features computed together: double [B, width], and the column of each name. Several names may share a column."""

    value: ir.Value
    width: int
    column: Mapping[str, int]

    @classmethod
    def of(cls, value: ir.Value, names: Sequence[str]) -> "ColumnBlock":
        """Return a block with one name a column."""
        return cls(value, len(names), {name: column for column, name in enumerate(names)})


def append_input_features(graph: ir.Graph, model: ModelMetadata, wanted: Collection[str]) -> list[ColumnBlock]:
    """Append the features with these names, with others that cost nothing more.

    Raises
    ------
    UnsupportedOpError
        A value that is pooled has unknown rank.
    """
    blocks = []
    for feature, names in columns_by_feature(model).items():
        if own := frozenset(names) & frozenset(wanted):
            blocks += RULES[feature](graph, model, own)
    return blocks


def _activations(graph: ir.Graph, model: ModelMetadata, wanted: frozenset[str]) -> list[ColumnBlock]:
    """Append statistics of the layers' inputs; those that several layers share are computed once."""
    values, asked = values_of(graph), dict[_Inputs, dict[str, set[str]]]()
    for layer in model.layers:
        for statistic in LAYER_STATISTICS:
            if (name := f"{layer.name}.{ACTIVATION}.{statistic}") in wanted:
                asked.setdefault(inputs_of(layer), {}).setdefault(statistic, set()).add(name)
    fixed = {inputs: names for inputs, names in asked.items() if _is_fixed(inputs, values)}
    blocks = [_open_block(inputs, names, values, graph) for inputs, names in asked.items() if inputs not in fixed]
    return [_fixed_block(fixed, values, graph), *blocks] if fixed else blocks


def _is_fixed(inputs: _Inputs, values: Values) -> bool:
    """Tell whether all extents after the batch are known."""
    return all(None not in (extents(values[name]) or (None, None))[1:] for name in inputs)


def _fixed_block(asked: Mapping[_Inputs, Mapping[str, set[str]]], values: Values, graph: ir.Graph) -> ColumnBlock:
    """Append statistics of values as those of gradients G = δ, under the names of these values."""
    layers = [_layer(inputs, values) for inputs in asked]
    pairs = [
        (f"{layer.name}.{key}", names)
        for layer, of in zip(layers, asked.values(), strict=True)
        for key, names in of.items()
    ]
    statistics = append_statistics(graph, layers, [own for own, _ in pairs])
    return ColumnBlock(
        statistics, len(pairs), {name: column for column, (_, names) in enumerate(pairs) for name in names}
    )


def _layer(inputs: _Inputs, values: Values) -> Layer:
    shapes = [tuple(int(extent or 0) for extent in (extents(values[name]) or ())[1:]) for name in inputs]
    parameters = tuple(Parameter(name, shape, "") for name, shape in zip(inputs, shapes, strict=True))
    return Layer(inputs[0], "", parameters, tuple(Reduction("direct", delta=name) for name in inputs))


def _open_block(inputs: _Inputs, asked: Mapping[str, set[str]], values: Values, graph: ir.Graph) -> ColumnBlock:
    statistics = append_open_statistics([values[name] for name in inputs], Emitter(graph, STATISTICS_RULE))
    columns = {name: LAYER_STATISTICS.index(key) for key, names in asked.items() for name in names}
    return ColumnBlock(statistics, len(LAYER_STATISTICS), columns)


def _pooled(graph: ir.Graph, model: ModelMetadata, wanted: frozenset[str]) -> list[ColumnBlock]:
    """Append means over positions; more than 256 are projected."""
    values, emit, blocks = values_of(graph), Emitter(graph, STATISTICS_RULE), []
    for depth in chosen_depths(model):
        if wanted.isdisjoint(depth.columns):
            continue
        value = values[depth.value]
        axes = positions_of(len(shape_of(value, value)), depth.channels_first)
        means = emit("ReduceMean", single(value, emit), emit.integers(*axes), keepdims=0) if axes else value
        double = emit("Cast", means, to=ir.DataType.DOUBLE)
        if depth.width > WIDEST:
            double = emit("MatMul", double, emit.constant(projection(depth.width), np.float64))
        blocks.append(ColumnBlock.of(double, depth.columns))
    return blocks


def _penultimate(graph: ir.Graph, model: ModelMetadata, wanted: frozenset[str]) -> list[ColumnBlock]:  # noqa: ARG001
    """Append the input of the layer that makes the logits."""
    vector = _as_double(graph, str(penultimate_of(model, "penultimate")[1].activation))
    return [ColumnBlock.of(vector.value, penultimate_names(model))]


def _logits(graph: ir.Graph, model: ModelMetadata, wanted: frozenset[str]) -> list[ColumnBlock]:  # noqa: ARG001
    """Append the logits."""
    return [ColumnBlock.of(_as_double(graph, model.logits).value, logit_names(model))]


def _gradnorm(graph: ir.Graph, model: ModelMetadata, wanted: frozenset[str]) -> list[ColumnBlock]:  # noqa: ARG001
    """Append Σ|a| · Σ|p − 1/q| of the layer that makes the logits."""
    vector = _as_double(graph, str(penultimate_of(model, "gradnorm")[1].activation))
    distance = _as_double(graph, model.logits).op("Softmax", axis=1) - 1 / model.classes
    norm = vector.op("Abs").total(1, keepdims=1) * distance.op("Abs").total(1, keepdims=1)
    return [ColumnBlock.of(norm.value, ["gradnorm"])]


def _as_double(graph: ir.Graph, name: str) -> Number:
    emit = Emitter(graph, STATISTICS_RULE)
    return Number(emit("Cast", values_of(graph)[name], to=ir.DataType.DOUBLE), emit, np.float64)


RULES: Mapping[str, Callable[[ir.Graph, ModelMetadata, frozenset[str]], list[ColumnBlock]]] = MappingProxyType(
    {
        "gradnorm": _gradnorm,
        "activations": _activations,
        "pooled": _pooled,
        "penultimate": _penultimate,
        "logits": _logits,
    }
)
