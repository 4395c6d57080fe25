"""Passes 2 and 6: find the logits, and seed back-propagation at them.

`find_logits` requires a normalised graph and ensures a value of shape [B, classes] before any softmax; `cut_at` ensures
that nothing stands in the graph but what the logits need.
`append_seed` requires a graph whose gradient waits for its seed and ensures one that needs nothing but the input.
"""

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from gradscore.errors import ModelError
from gradscore.graph.emitter import Emitter, attribute, extents
from gradscore.metadata import SIGNAL_LABEL

_NORMALISERS = ("Softmax", "LogSoftmax")


def find_logits(graph: ir.Graph, name: str | None = None) -> tuple[ir.Value, int]:
    """Return the logits and their number of classes, a final Softmax or LogSoftmax stripped.

    Raises
    ------
    ModelError
        No output, or more than one, can be the logits; or `name` is not an output of shape [B, classes].
    """
    if name is None:
        candidates = [value for value in graph.outputs if _classes(value) is not None]
        if len(candidates) != 1:
            raise ModelError(
                f"{len(candidates)} outputs of the model look like class scores [batch, classes] ({_described(graph)}): "
                "name one with --logits NAME"
            )
        output = candidates[0]
    else:
        output = _named(graph, name)
    logits = _before_normaliser(output)
    classes = _classes(logits) or _classes(output)
    if classes is None:
        raise ModelError(f"output {output.name!r} is not [batch, classes]: outputs are {_described(graph)}; see --logits NAME")
    return logits, classes


def cut_at(model: ir.Model, logits: ir.Value) -> None:
    """Make the logits the only output; what they do not depend on goes, other heads and their weights included."""
    model.graph.outputs.clear()
    model.graph.outputs.append(logits)
    common_passes.RemoveUnusedNodesPass()(model)


def append_seed(graph: ir.Graph, logits: ir.Value, seed: ir.Value, classes: int) -> ir.Value:
    """Feed the value `seed` with u = softmax(z with z_ŷ at −∞) − onehot(ŷ) and return the label ŷ [B].

    The true seed p − onehot(ŷ) is s·u with the residual s = 1 − p_ŷ; s multiplies at the very end, outside the graph, so
    every signal stays of order one for any confidence.
    """
    emit = Emitter(graph, "seed")
    dtype = (logits.dtype or ir.DataType.FLOAT).numpy()
    label = emit("ArgMax", logits, axis=1, keepdims=1)
    predicted = emit("Equal", label, emit.constant(np.arange(classes)[None], np.int64))
    others = emit("Softmax", emit("Where", predicted, emit.constant(-np.inf, dtype), logits), axis=-1)
    unit_seed = emit("Where", predicted, emit.constant(-1, dtype), others)
    seed.replace_all_uses_with(unit_seed, replace_graph_outputs=True)
    flat = emit("Squeeze", label, emit.integers(1))
    flat.name = SIGNAL_LABEL
    flat.type, flat.shape = ir.TensorType(ir.DataType.INT64), ir.Shape(["batch"])
    return flat


def _named(graph: ir.Graph, name: str) -> ir.Value:
    for value in graph.outputs:
        if value.name == name:
            return value
    raise ModelError(f"the model has no output {name!r}: outputs are {_described(graph)}; see --logits NAME")


def _before_normaliser(output: ir.Value) -> ir.Value:
    node = output.producer()
    if node is None or node.op_type not in _NORMALISERS or attribute(node, "axis", -1) not in (-1, 1):
        return output
    source = node.inputs[0]
    return output if source is None else source


def _classes(value: ir.Value) -> int | None:
    shape = extents(value)
    floating = value.dtype is None or value.dtype.is_floating_point()
    if shape is None or len(shape) != 2 or shape[1] is None or shape[1] < 2 or not floating:
        return None
    return shape[1]


def _described(graph: ir.Graph) -> str:
    return ", ".join(f"{value.name} {value.shape if value.shape is not None else '[?]'}" for value in graph.outputs)
