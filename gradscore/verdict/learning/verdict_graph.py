"""A fitted judge as an ONNX graph."""

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from gradscore.errors import ModelError
from gradscore.verdict.learning.judge import Judge
from gradscore.verdict.learning.verdict_nodes import INPUT, VerdictNodes


def verdict_graph(judge: Judge, feature_count: int) -> onnx.GraphProto:
    """Return the graph from features [N, F] to the three probabilities.

    The sum of 0·x is added to each: it is NaN if a feature is NaN or Inf, and 0 otherwise.
    """
    emit = VerdictNodes()
    answers = judge.emit(emit, INPUT)
    poison = emit("ReduceSum", emit("Mul", INPUT, np.float64(0.0)), np.array([1], dtype=np.int64), keepdims=0)
    correct, right, known = (emit("Add", p, poison) for p in (answers.p_correct, answers.p_right, answers.p_known))
    return emit.graph((correct, right, known), feature_count)


def selection(graph: onnx.GraphProto) -> onnx.TensorProto:
    """Return the constant that selects the features which a verdict reads. Every verdict begins with this selection.

    Raises
    ------
    ModelError
        The graph does not begin so.
    """
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] == INPUT:
            found: onnx.TensorProto = next(tensor for tensor in graph.initializer if tensor.name == node.input[1])
            return found
    raise ModelError("the verdict does not say which features it takes: fit it again with this gradscore")


def selected(graph: onnx.GraphProto) -> npt.NDArray[np.int64]:
    """Return the columns that a verdict reads."""
    return np.asarray(numpy_helper.to_array(selection(graph)), dtype=np.int64)
