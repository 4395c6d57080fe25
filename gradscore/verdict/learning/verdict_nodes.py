"""Emitter of a verdict's ONNX nodes: double precision, default domain, only the operators in `OPERATORS`."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
INPUT, OUTPUT = "features", "p_correct"
P_RIGHT, P_KNOWN = "p_right", "p_known"
OUTPUTS = (OUTPUT, P_RIGHT, P_KNOWN)
ARITHMETIC = ("Abs", "Add", "Div", "Exp", "Log", "MatMul", "Max", "Min", "Mul", "Sign", "Sqrt", "Sub")
REDUCING = ("ReduceMin", "ReduceSum", "TopK")
CLASSIFYING = ("Cast", "Equal", "Identity", "LessOrEqual", "Relu", "Sigmoid")
ARRANGING = ("Concat", "Gather", "Reshape", "Transpose")
OPERATORS = frozenset((*ARITHMETIC, *REDUCING, *CLASSIFYING, *ARRANGING))


class VerdictNodes:
    """Collects nodes and constants. Each call adds a node and returns the name of its output."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def __call__(self, operator: str, *inputs: str | npt.ArrayLike, **attributes: Any) -> str:
        """Append a node with one output. Arrays among the inputs become constants."""
        return self.first(operator, 1, *inputs, **attributes)

    def clipped(self, value: str, limit: float) -> str:
        """Append nodes that clip a value to ±limit."""
        return self("Max", self("Min", value, np.float64(limit)), np.float64(-limit))

    def first(self, operator: str, outputs: int, *inputs: str | npt.ArrayLike, **attributes: Any) -> str:
        """Append a node with several outputs, and return the name of the first one."""
        if operator not in OPERATORS:
            raise ValueError(f"{operator} is not among the operators that a verdict may use")
        names = [given if isinstance(given, str) else self._constant(given) for given in inputs]
        output = f"{operator.lower()}_{len(self._nodes)}"
        made = [output, *(f"{output}_{i}" for i in range(1, outputs))]
        self._nodes.append(helper.make_node(operator, names, made, name=output, **attributes))
        return output

    def _constant(self, value: npt.ArrayLike) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def graph(self, results: tuple[str, str, str], feature_count: int) -> onnx.GraphProto:
        """Return the graph from `features` [N, F] to the values `results`, each [N], named as in `OUTPUTS`.

        One Gather selects the features that anything reads, so that a reader of the file sees which these are.
        """
        self._select_once()
        last = [
            helper.make_node("Identity", [result], [name], name=name)
            for result, name in zip(results, OUTPUTS, strict=True)
        ]
        features = helper.make_tensor_value_info(INPUT, TensorProto.DOUBLE, ["N", feature_count])
        outputs = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["N"]) for name in OUTPUTS]
        return helper.make_graph([*self._nodes, *last], "verdict", [features], outputs, list(self._constants.values()))

    def _select_once(self) -> None:
        """Let all nodes that select features select from one selection of all that are used."""
        readers = [node for node in self._nodes if node.op_type == "Gather" and node.input[0] == INPUT]
        asked = [numpy_helper.to_array(self._constants[node.input[1]]) for node in readers]
        if len(readers) < 2:
            return
        used = np.unique(np.concatenate(asked))
        for node, columns in zip(readers, asked, strict=True):
            node.input[0] = "selected"
            node.input[1] = self._constant(np.searchsorted(used, columns).astype(np.int64))
        first = helper.make_node("Gather", [INPUT, self._constant(used)], ["selected"], name="selected", axis=1)
        self._nodes.insert(0, first)
