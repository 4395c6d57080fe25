"""Pass 9: append the feature table and the outputs of a self-scoring model.

Requires: a scoring graph. Ensures: features scaled by the residual, in double precision, so that norms stay distinct
even for a prediction with 1 − p = 1e-30; outputs with names that are unique in the graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from gradscore.graph.assemble.head_statistics import HEAD_NAMES, HeadStatistics
from gradscore.graph.differentiate.gradient import values_of
from gradscore.graph.nodes.emitter import Emitter
from gradscore.graph.statistics.append import append_statistics
from gradscore.model.layer_table import Layer
from gradscore.model.metadata import SCALED_STATISTICS


@dataclass(frozen=True)
class FeatureTable:
    """Features by name, as columns of one double tensor [B, F]."""

    emit: Emitter
    whole: ir.Value
    names: tuple[str, ...]

    def take(self, names: Sequence[str]) -> ir.Value:
        """Return some of the features, double [B, K]."""
        columns = [self.names.index(name) for name in names]
        if columns == list(range(len(self.names))):
            return self.whole
        return self.emit("Gather", self.whole, self.emit.integers(*columns), axis=1)


def append_features(
    graph: ir.Graph, layers: Sequence[Layer], head: HeadStatistics, features: Sequence[str], *, at_once: int
) -> FeatureTable:
    """Append features of layers and head; gradients above `at_once` numbers are computed sample by sample."""
    emit = Emitter(graph, "features")
    of_layers = tuple(dict.fromkeys(name for name in features if name not in HEAD_NAMES))
    of_head = tuple(name for name in HEAD_NAMES if name in features or not of_layers)  # a table needs a column
    columns = [getattr(head, name).value for name in of_head]
    if of_layers:
        unit = append_statistics(graph, layers, of_layers, at_once=at_once)
        is_scaled = np.array([[name.rpartition(".")[2] in SCALED_STATISTICS for name in of_layers]])
        factor = emit("Where", emit.constant(is_scaled, np.bool_), head.residual.value, emit.constant(1, np.float64))
        columns.insert(0, emit("Mul", unit, factor))
    return FeatureTable(emit, emit("Concat", *columns, axis=1), (*of_layers, *of_head))


def add_output(graph: ir.Graph, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[str | int]) -> str:
    """Make a value an output and return its name, which is changed only if it is taken."""
    taken = {str(other.name) for other in (*graph.inputs, *graph.outputs)}
    chosen = name if name not in taken else f"gradscore_{name}"
    if (other := values_of(graph).get(chosen)) is not None and other is not value:
        other.name = f"{chosen}/internal"
    value.name, value.type, value.shape = chosen, ir.TensorType(dtype), ir.Shape(list(shape))
    graph.outputs.append(value)
    return chosen
