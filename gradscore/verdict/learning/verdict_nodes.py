"""Emitter of a verdict's ONNX nodes: double precision, default domain, only the operators in `OPERATORS`."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
INPUT, OUTPUT = "features", "p_correct"
ARITHMETIC = ("Abs", "Add", "Div", "Log", "MatMul", "Max", "Min", "Mul", "ReduceSum", "Sign", "Sub")
CLASSIFYING = ("Cast", "Equal", "Gather", "Identity", "LessOrEqual", "Relu", "Reshape", "Sigmoid")
OPERATORS = frozenset((*ARITHMETIC, *CLASSIFYING))


class VerdictNodes:
    """Collects nodes and constants. Each call adds a node and returns the name of its output."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def __call__(self, operator: str, *inputs: str | npt.ArrayLike, **attributes: Any) -> str:
        """Append a node with one output. Arrays among the inputs become constants."""
        if operator not in OPERATORS:
            raise ValueError(f"{operator} is not among the operators that a verdict may use")
        names = [given if isinstance(given, str) else self._constant(given) for given in inputs]
        output = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, names, [output], name=output, **attributes))
        return output

    def _constant(self, value: npt.ArrayLike) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def graph(self, result: str, feature_count: int) -> onnx.GraphProto:
        """Return the graph from `features` [N, F] to `p_correct` [N], which is the value `result`."""
        last = helper.make_node("Identity", [result], [OUTPUT], name=OUTPUT)
        features = helper.make_tensor_value_info(INPUT, TensorProto.DOUBLE, ["N", feature_count])
        p_correct = helper.make_tensor_value_info(OUTPUT, TensorProto.DOUBLE, ["N"])
        return helper.make_graph([*self._nodes, last], "verdict", [features], [p_correct], self._constants)
