"""Detectors in a self-scoring model: the nodes of each one, on the values of the graph."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from gradscore.errors import ModelError
from gradscore.graph.assemble.feature_table import FeatureTable
from gradscore.graph.nodes.emitter import Emitter
from gradscore.model.layer_inputs import WIDEST, penultimate_of, positions_of, projection
from gradscore.model.metadata import ModelMetadata
from gradscore.scoring.detector_columns import DetectorColumn, depths_of

LARGEST = 256 * 2**20  # bytes of what the detectors of a file learned
_AXES_AS_INPUT = ("ReduceMax", "ReduceMean", "ReduceMin")  # since opset 18


class GraphNodes:
    """Appends a detector's nodes to a graph, which names values as `Nodes` does."""

    def __init__(self, graph: ir.Graph) -> None:
        self._emit = Emitter(graph, "detector")
        self._values: dict[str, ir.Value] = {}
        self._constants: dict[
            int, tuple[Any, ir.Value]
        ] = {}  # it keeps the arrays, so that no other one gets their identity
        self.bytes = 0

    def __call__(self, operator: str, *inputs: Any, which: int = 0, **attributes: Any) -> str:
        """Append a node, and return the name of its output number `which`, the last one that it has."""
        if operator in _AXES_AS_INPUT:
            inputs = (*inputs, np.array(attributes.pop("axes")))
        values = [self._values[one] if isinstance(one, str) else self._constant(one) for one in inputs]
        return self.named(self._emit.emit(operator, values, which + 1, attributes)[which])

    def named(self, value: ir.Value) -> str:
        """Return the name by which nodes may read a value of the graph."""
        self._values[str(value.name)] = value
        return str(value.name)

    def double(self, value: ir.Value) -> str:
        """Return the name of a value in double precision."""
        return self("Cast", self.named(value), to=ir.DataType.DOUBLE)

    def value(self, name: str) -> ir.Value:
        """Return the value of this name."""
        return self._values[name]

    def _constant(self, array: Any) -> ir.Value:
        if id(array) not in self._constants:
            values = np.asarray(array)
            self.bytes += values.nbytes
            self._constants[id(array)] = array, self._emit.constant(values, values.dtype)
        return self._constants[id(array)][1]


def with_detectors(
    table: FeatureTable, graph: ir.Graph, values: dict[str, ir.Value], model: ModelMetadata, columns: Sequence[DetectorColumn],
    label: ir.Value,
) -> FeatureTable:  # fmt: skip
    """Append detectors to a graph, and return the table of features with their columns at its end.

    Parameters
    ----------
    table
        The features that the graph has.
    graph, values, model
        The graph, its values by name, and what the scoring model says of itself.
    columns
        The detectors, with their weights and references. These become constants, stored in double precision.
    label
        The predicted class, int64 [B].

    Raises
    ------
    ModelError
        The constants have more than 256 MiB.
    """
    if not columns:
        return table
    nodes = GraphNodes(graph)
    given = {"logits": nodes.double(values[model.logits]), "label": nodes.named(label)}
    if any(one.detector.reads_vector for one in columns):
        given["vector"] = nodes.double(values[str(penultimate_of(model, columns[0].name)[1].activation)])
    if any(one.detector.reads_pooled for one in columns):
        given |= {f"pooled/{depth.layer}": _pooled(nodes, values[depth.value], depth) for depth in depths_of(model)}
    found = [nodes("Unsqueeze", one.emit(nodes, given, model.classes), np.array([1])) for one in columns]
    if nodes.bytes > LARGEST:
        raise ModelError(
            f"the detectors that the verdict reads have {nodes.bytes:,} bytes of reference, and a self-scoring model may hold "
            f"{LARGEST:,}: fit a verdict without the largest ones (`gradscore fit --features` chooses by pattern)"
        )
    whole = table.emit("Concat", table.whole, *(nodes.value(name) for name in found), axis=1)
    places = {one.name: table.width + place for place, one in enumerate(columns)}
    return FeatureTable(table.emit, whole, table.width + len(columns), {**table.column, **places})


def _pooled(nodes: GraphNodes, value: ir.Value, depth: Any) -> str:
    """Return the name of a layer's input as its means over all positions, double [B, C]."""
    rank = len(value.shape) if value.shape is not None else 2
    positions = list(positions_of(rank, depth.channels_first))
    name = nodes.named(value)
    means = nodes("ReduceMean", name, axes=positions, keepdims=0) if positions else name
    double = nodes("Cast", means, to=ir.DataType.DOUBLE)
    return double if depth.width <= WIDEST else nodes("MatMul", double, projection(depth.width))
