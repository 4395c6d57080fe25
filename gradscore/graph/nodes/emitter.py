"""Writes standard ONNX nodes into a graph, each marked with the rule that wrote it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, DTypeLike

_COUNT = "gradscore.count"
RULE_KEY = "gradscore.rule"
STATISTICS = "statistics"  # the rule that writes the layers' statistics
ORIGIN_KEY = "gradscore.origin"  # the name under which a model brought a tensor that now has another form
UNSHARED_KEY = "gradscore.unshared"  # marks one of the copies of a tensor that several layers happened to share
MODULE_KEY = "gradscore.module"  # the module that a rewritten node came from
CONSTANT_KEY = "gradscore.constant"  # marks an initializer that a rewrite made and training never saw


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
    about
        What the new nodes are named after where there is no anchor.
    """

    def __init__(self, graph: ir.Graph, rule: str, anchor: ir.Node | None = None, about: str = "graph") -> None:
        self._graph = graph
        self._rule = rule
        self._anchor = anchor
        self._prefix = f"{rule}/{about if anchor is None else anchor.outputs[0].name}"

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
        initializer = ir.Value(
            name=name, shape=ir.Shape(tensor.numpy().shape), type=ir.TensorType(tensor.dtype), const_value=tensor,
            metadata_props={CONSTANT_KEY: "1"},
        )  # fmt: skip
        self._graph.register_initializer(initializer)
        return initializer

    def weight(self, array: np.ndarray, name: str, form: str) -> ir.Value:
        """Register a learned tensor in another form than it came in; each form of a tensor is kept once."""
        fresh = f"{name}/{form}"
        if fresh in self._graph.initializers:
            return self._graph.initializers[fresh]
        tensor = ir.tensor(array, name=fresh)
        value = ir.Value(
            name=fresh, shape=ir.Shape(tensor.numpy().shape), type=ir.TensorType(tensor.dtype), const_value=tensor,
            metadata_props={ORIGIN_KEY: name},
        )  # fmt: skip
        self._graph.register_initializer(value)
        return value

    def reshaped(self, value: ir.Value, shape: tuple[int, ...] | None) -> ir.Value:
        """Return an initializer in another shape; a computed value through a Reshape. None leaves it as it is."""
        if shape is None or value.const_value is None:
            return value if shape is None else self("Reshape", value, self.integers(*shape))
        return self.weight(value.const_value.numpy().reshape(shape), origin_of(value), f"reshaped{list(shape)}")

    def transposed(self, value: ir.Value | None) -> ir.Value:
        """Return a matrix turned: an initializer as a new one, anything else through a Transpose."""
        if value is None or value.const_value is None:
            return self("Transpose", value, perm=[1, 0])
        return self.weight(np.ascontiguousarray(value.const_value.numpy().T), origin_of(value), "transposed")

    def integers(self, *values: int) -> ir.Value:
        """Register a 1-D int64 initializer."""
        return self.constant(values, np.int64)

    def _fresh(self, stem: str) -> str:
        count = self._graph.meta[_COUNT] = self._graph.meta.get(_COUNT, 0) + 1
        return f"{self._prefix}/{stem}_{count}"


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


def origin_of(value: ir.Value) -> str:
    """Return the name under which the model brought a tensor."""
    return value.metadata_props.get(ORIGIN_KEY, str(value.name))


def is_constant(value: ir.Value) -> bool:
    """Tell whether a rewrite made this initializer: a number of the arithmetic, not a learned one."""
    return CONSTANT_KEY in value.metadata_props


def dtype_of(value: ir.Value | None) -> np.dtype:
    """Return a value's NumPy type; float32 where it is not known."""
    known = value.dtype if value is not None else None
    return (known or ir.DataType.FLOAT).numpy()


def replace_output(old: ir.Value, new: ir.Value) -> None:
    """Let a new value take the place of a node's further output."""
    new.type, new.shape = new.type or old.type, new.shape if new.shape is not None else old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def replace_node(node: ir.Node, value: ir.Value) -> None:
    """Let `value` take the place of a node's first output, its name included where that is a graph output's."""
    output = node.outputs[0]
    value.type = value.type or output.type
    value.shape = value.shape if value.shape is not None else output.shape
    if output.is_graph_output() and not value.is_graph_output() and not value.is_graph_input():
        output.name, value.name = f"{output.name}/replaced", output.name
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    if node.graph is not None:
        node.graph.remove(node, safe=True)
