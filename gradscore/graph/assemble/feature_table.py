"""Pass 9: append the feature table and the outputs of a self-scoring model.

Requires: a scoring graph. Ensures: features scaled by the residual, in double precision, so that norms stay distinct
even for a prediction with 1 − p = 1e-30; outputs with names that are unique in the graph.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from gradscore.graph.assemble.head_statistics import HEAD_NAMES, HeadStatistics
from gradscore.graph.assemble.input_features import ColumnBlock, append_input_features
from gradscore.graph.differentiate.gradient import values_of
from gradscore.graph.nodes.emitter import Emitter
from gradscore.graph.statistics.append import append_statistics
from gradscore.model.metadata import SCALED_STATISTICS, ModelMetadata


@dataclass(frozen=True)
class FeatureTable:
    """Features by name, as columns of one double tensor [B, width]."""

    emit: Emitter
    whole: ir.Value
    width: int
    column: Mapping[str, int]

    @classmethod
    def of(cls, blocks: Sequence[ColumnBlock], emit: Emitter) -> "FeatureTable":
        """Put blocks side by side."""
        starts = np.cumsum([0, *(block.width for block in blocks)]).tolist()
        whole = emit("Concat", *(block.value for block in blocks), axis=1) if len(blocks) > 1 else blocks[0].value
        places = [
            (name, start + column)
            for start, block in zip(starts[:-1], blocks, strict=True)
            for name, column in block.column.items()
        ]
        return cls(emit, whole, starts[-1], dict(places))

    def take(self, names: Sequence[str]) -> ir.Value:
        """Return some of the features, double [B, K]."""
        columns = [self.column[name] for name in names]
        if columns == list(range(self.width)):
            return self.whole
        return self.emit("Gather", self.whole, self.emit.integers(*columns), axis=1)


def append_features(
    graph: ir.Graph, model: ModelMetadata, head: HeadStatistics, features: Sequence[str], *, at_once: int
) -> FeatureTable:
    """Append features of gradients, of the head and of inputs; gradients above `at_once` numbers sample by sample."""
    emit = Emitter(graph, "features")
    of_gradients = _of_gradients(model, features)
    of_head = tuple(name for name in HEAD_NAMES if name in features)
    blocks = append_input_features(graph, model, features)
    if of_head or not (of_gradients or blocks):  # a table needs a column
        named = of_head or HEAD_NAMES
        values = [getattr(head, name).value for name in named]
        blocks.insert(0, ColumnBlock.of(emit("Concat", *values, axis=1), named))
    if of_gradients:
        unit = append_statistics(graph, model.layers, of_gradients, at_once=at_once)
        is_scaled = np.array([[name.rpartition(".")[2] in SCALED_STATISTICS for name in of_gradients]])
        factor = emit("Where", emit.constant(is_scaled, np.bool_), head.residual.value, emit.constant(1, np.float64))
        blocks.insert(0, ColumnBlock.of(emit("Mul", unit, factor), of_gradients))
    return FeatureTable.of(blocks, emit)


def _of_gradients(model: ModelMetadata, features: Sequence[str]) -> tuple[str, ...]:
    known = frozenset(model.feature_names) - frozenset(HEAD_NAMES)
    return tuple(name for name in dict.fromkeys(features) if name in known)


def add_output(graph: ir.Graph, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[str | int]) -> str:
    """Make a value an output and return its name, which is changed only if it is taken."""
    taken = {str(other.name) for other in (*graph.inputs, *graph.outputs)}
    chosen = name if name not in taken else f"gradscore_{name}"
    if (other := values_of(graph).get(chosen)) is not None and other is not value:
        other.name = f"{chosen}/internal"
    value.name, value.type, value.shape = chosen, ir.TensorType(dtype), ir.Shape(list(shape))
    graph.outputs.append(value)
    return chosen
