"""Emitter of a verdict's ONNX nodes: double precision, default domain, only the operators in `OPERATORS`."""

import onnx
from onnx import TensorProto

from gradscore.detectors.nodes import IR_VERSION, OPSET, Nodes

__all__ = ["INPUT", "IR_VERSION", "OPERATORS", "OPSET", "OUTPUT", "VerdictNodes"]

INPUT, OUTPUT = "features", "p_correct"
ARITHMETIC = ("Abs", "Add", "Div", "Log", "MatMul", "Max", "Min", "Mul", "ReduceSum", "Sign", "Sub")
CLASSIFYING = ("Cast", "Equal", "Gather", "Identity", "LessOrEqual", "Relu", "Reshape", "Sigmoid")
OPERATORS = frozenset((*ARITHMETIC, *CLASSIFYING))


class VerdictNodes(Nodes):
    """Collects a verdict's nodes and constants. Each call adds a node and returns the name of its output."""

    operators = OPERATORS

    def graph(self, result: str, feature_count: int) -> onnx.GraphProto:
        """Return the graph from `features` [N, F] to `p_correct` [N], which is the value `result`."""
        return self.graph_of("verdict", {INPUT: (TensorProto.DOUBLE, ["N", feature_count])}, {OUTPUT: result})
