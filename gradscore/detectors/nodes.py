"""Emitter of ONNX nodes in double precision: default domain, only operators that every runtime has."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

OPSET = 17
IR_VERSION = 8
NODE_OPERATORS = frozenset(
    {
        "Abs", "Add", "Cast", "Div", "Equal", "Exp", "Gather", "GatherElements", "Greater", "Less", "Log", "MatMul", "Max",
        "Min", "Mul", "Neg", "Pow", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Reshape", "ScatterElements",
        "Sqrt", "Sub", "TopK", "Transpose", "Unsqueeze", "Where",
    }
)  # fmt: skip
"""The operators that a detector's arithmetic may use."""


class Nodes:
    """Collects nodes and constants. An array that is given several times becomes one constant."""

    operators = NODE_OPERATORS

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._names: dict[int, tuple[Any, str]] = {}  # it keeps the arrays, so that no other one gets their identity

    def __call__(self, operator: str, *inputs: str | npt.ArrayLike, which: int = 0, **attributes: Any) -> str:
        """Append a node, and return the name of its output number `which`, the last one that it has."""
        if operator not in self.operators:
            raise ValueError(f"{operator} is not among the operators that may be used here")
        names = [given if isinstance(given, str) else self._constant(given) for given in inputs]
        output = f"{operator.lower()}_{len(self._nodes)}"
        before = [f"{output}_{place}" for place in range(which)]
        self._nodes.append(helper.make_node(operator, names, [*before, output], name=output, **attributes))
        return output

    def graph_of(
        self, name: str, inputs: dict[str, tuple[int, list[int | str]]], outputs: dict[str, str]
    ) -> onnx.GraphProto:
        """Return the graph of all nodes.

        Parameters
        ----------
        name
            The graph's name.
        inputs
            Element type and shape of each input, by name.
        outputs
            The value, double [N], behind each output.
        """
        last = [helper.make_node("Identity", [value], [output], name=output) for output, value in outputs.items()]
        given = [helper.make_tensor_value_info(one, kind, shape) for one, (kind, shape) in inputs.items()]
        made = [helper.make_tensor_value_info(one, onnx.TensorProto.DOUBLE, ["N"]) for one in outputs]
        return helper.make_graph([*self._nodes, *last], name, given, made, self._constants)

    def _constant(self, value: npt.ArrayLike) -> str:
        if isinstance(value, np.ndarray) and id(value) in self._names:
            return self._names[id(value)][1]
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name))
        self._names[id(value)] = value, name
        return name
