"""Emitter of a verdict's ONNX nodes: double precision, default domain, only the operators in `OPERATORS`."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from gradscore.detectors.nodes import IR_VERSION, OPSET, Nodes

__all__ = [
    "INPUT",
    "IR_VERSION",
    "OPERATORS",
    "OPSET",
    "OUTPUT",
    "P_KNOWN",
    "P_RIGHT",
    "VERDICT_OUTPUTS",
    "VerdictNodes",
]

INPUT, OUTPUT = "features", "p_correct"
P_RIGHT, P_KNOWN = "p_right", "p_known"
VERDICT_OUTPUTS = (OUTPUT, P_RIGHT, P_KNOWN)
ARITHMETIC = ("Abs", "Add", "Div", "Log", "MatMul", "Max", "Min", "Mul", "Sign", "Sqrt", "Sub")
REDUCING = ("ReduceMin", "ReduceSum", "TopK")
CLASSIFYING = ("Cast", "Equal", "Identity", "LessOrEqual", "Relu", "Sigmoid")
ARRANGING = ("Concat", "Gather", "Reshape", "Transpose")
OPERATORS = frozenset((*ARITHMETIC, *REDUCING, *CLASSIFYING, *ARRANGING))


class VerdictNodes(Nodes):
    """Collects a verdict's nodes and constants. Each call adds a node and returns the name of its output."""

    operators = OPERATORS

    def clipped(self, value: str, limit: float) -> str:
        """Append nodes that clip a value to ±limit."""
        return self("Max", self("Min", value, np.float64(limit)), np.float64(-limit))

    def first(self, operator: str, outputs: int, *inputs: str | npt.ArrayLike, **attributes: Any) -> str:
        """Append a node with several outputs, and return the name of the first one."""
        self(operator, *inputs, which=outputs - 1, **attributes)
        return str(self._nodes[-1].output[0])

    def graph(self, results: tuple[str, str, str], feature_count: int) -> onnx.GraphProto:
        """Return the graph from `features` [N, F] to the values `results`, each [N], named as in `VERDICT_OUTPUTS`.

        One Gather selects the features that anything reads, so that a reader of the file sees which these are.
        """
        self._select_once()
        features: dict[str, tuple[int, list[int | str]]] = {INPUT: (TensorProto.DOUBLE, ["N", feature_count])}
        return self.graph_of("verdict", features, dict(zip(VERDICT_OUTPUTS, results, strict=True)))

    def _select_once(self) -> None:
        """Let all nodes that select features select from one selection of all that are used."""
        readers = [node for node in self._nodes if node.op_type == "Gather" and node.input[0] == INPUT]
        values = {constant.name: constant for constant in self._constants}
        asked = [numpy_helper.to_array(values[node.input[1]]) for node in readers]
        if len(readers) < 2:
            return
        used = np.unique(np.concatenate(asked))
        for node, columns in zip(readers, asked, strict=True):
            node.input[0] = "selected"
            node.input[1] = self._constant(np.searchsorted(used, columns).astype(np.int64))
        first = helper.make_node("Gather", [INPUT, self._constant(used)], ["selected"], name="selected", axis=1)
        self._nodes.insert(0, first)
