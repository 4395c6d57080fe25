"""Writes standard ONNX nodes into a graph, each marked with the rule that wrote it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, DTypeLike

RULE_KEY = "gradscore.rule"


class Emitter:
    """Inserts nodes before an anchor node, or at the graph's end; calling it emits one node of the default domain.

    Parameters
    ----------
    graph
        The graph written to.
    rule
        Name of the rewriting rule; it goes into the new names and the nodes' metadata.
    anchor
        New nodes stand before this one; None appends.
    """

    def __init__(self, graph: ir.Graph, rule: str, anchor: ir.Node | None = None) -> None:
        self._graph = graph
        self._rule = rule
        self._anchor = anchor
        self._prefix = f"{rule}/{anchor.outputs[0].name}" if anchor is not None else rule
        self._count = 0

    def __call__(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Emit one node with one output and return the output."""
        return self.emit(op_type, inputs, 1, attributes)[0]

    def emit(
        self, op_type: str, inputs: Sequence[ir.Value | None], outputs: int, attributes: dict[str, Any]
    ) -> Sequence[ir.Value]:
        """Emit one node with any number of outputs."""
        values = [ir.Value(name=self._fresh(f"{op_type}_{position}")) for position in range(outputs)]
        node = ir.Node(
            "",
            op_type,
            inputs,
            ir.convenience.convert_attributes(attributes),
            outputs=values,
            name=self._fresh(op_type),
            metadata_props={RULE_KEY: self._rule},
        )
        if self._anchor is None:
            self._graph.append(node)
        else:
            self._graph.insert_before(self._anchor, node)
        return values

    def constant(self, value: ArrayLike, dtype: DTypeLike) -> ir.Value:
        """Register an initializer and return it."""
        name = self._fresh("constant")
        tensor = ir.tensor(np.asarray(value, dtype=dtype), name=name)
        initializer = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._graph.register_initializer(initializer)
        return initializer

    def integers(self, *values: int) -> ir.Value:
        """Register a 1-D int64 initializer."""
        return self.constant(values, np.int64)

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{self._prefix}/{stem}_{self._count}"


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """Return the value of a node's attribute, `default` where it is not set."""
    found = node.attributes.get(name)
    if found is None:
        return default
    return list(found.value) if isinstance(found.value, tuple) else found.value


def extents(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Return a value's shape with None for each symbolic extent; None where even the rank is unknown."""
    if value is None or value.shape is None:
        return None
    return tuple(extent if isinstance(extent, int) else None for extent in value.shape)
