"""Passes 2 and 6: find the logits, and seed back-propagation at them.

`find_head` requires a normalised graph, and ensures a value of shape [B, classes] before any softmax.
`cut_at` ensures that the graph holds only what the logits need.
`append_seed` requires a gradient graph without its seed, and ensures one that needs only the model's inputs.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from gradscore.errors import ModelError
from gradscore.graph.nodes.emitter import Emitter, attribute, dtype_of, extents
from gradscore.graph.nodes.probing import BATCH
from gradscore.model.metadata import SEED_RULE, SIGNAL_LABEL

_NORMALISERS = ("LogSoftmax", "Sigmoid", "Softmax")


@dataclass(frozen=True)
class Head:
    """A classifier's output of class scores, and the logits [B, classes] behind it.

    `normaliser` is the operator between the two: its name, "logit" for the one logit of two classes, or None.
    """

    output: str
    logits: ir.Value
    classes: int
    normaliser: str | None


def find_head(graph: ir.Graph, name: str | None = None) -> Head:
    """Find the logits [B, classes], in front of a final Softmax, LogSoftmax or Sigmoid.

    One sigmoid logit z is the two-class case with logits (0, z).

    Raises
    ------
    ModelError
        No output or several could be the logits, or the model has no output `name`.
    """
    output = _only_scores(graph) if name is None else _named(graph, name)
    logits = _before_normaliser(output)
    shape = extents(logits) or extents(output)
    if shape is None or len(shape) not in (1, 2) or shape[1:] == (None,):
        raise ModelError(
            f"output {output.name!r} is not [batch, classes]: outputs are {_described(graph)}; choose one with --logits NAME"
        )
    if len(shape) == 2 and shape[1] != 1:
        return Head(str(output.name), logits, int(shape[1] or 0), _normaliser(output, logits))
    normaliser = _normaliser(output, logits) or "logit"
    return Head(str(output.name), _two_classes(graph, logits), 2, normaliser)


def _normaliser(output: ir.Value, logits: ir.Value) -> str | None:
    computed = _computed(output)
    node = computed.producer()
    return None if computed is logits or node is None else node.op_type


def _computed(output: ir.Value) -> ir.Value:
    """Return an output as it was before a cast to another floating-point type."""
    node = output.producer()
    source = None if node is None or node.op_type != "Cast" else node.inputs[0]
    is_floating = source is not None and source.dtype is not None and source.dtype.is_floating_point()
    return _computed(source) if source is not None and is_floating else output


def _only_scores(graph: ir.Graph) -> ir.Value:
    """Return the only output that can be class scores: several columns, or one after a Sigmoid."""
    candidates = [value for value in graph.outputs if _looks_like_scores(value)]
    if len(candidates) != 1:
        raise ModelError(
            f"{len(candidates)} outputs of the model look like class scores [batch, classes] ({_described(graph)}): "
            "name one with --logits NAME"
        )
    return candidates[0]


def _looks_like_scores(value: ir.Value) -> bool:
    shape, node = extents(value), _computed(value).producer()
    if shape is None or (value.dtype is not None and not value.dtype.is_floating_point()):
        return False
    is_sigmoid = node is not None and node.op_type == "Sigmoid"
    return (len(shape) == 2 and shape[1] is not None and shape[1] > 1) or (is_sigmoid and shape[1:] in ((), (1,)))


def _two_classes(graph: ir.Graph, logit: ir.Value) -> ir.Value:
    emit = Emitter(graph, "two_classes")
    dtype = dtype_of(logit)
    column = emit("Reshape", logit, emit.integers(-1, 1))
    logits = emit("MatMul", column, emit.constant([[0, 1]], dtype))
    column.shape, column.type = ir.Shape([BATCH, 1]), logit.type
    logits.shape, logits.type = ir.Shape([BATCH, 2]), logit.type
    return logits


def cut_at(model: ir.Model, logits: ir.Value) -> None:
    """Make the logits the only output; remove all that they do not need, such as other heads."""
    model.graph.outputs.clear()
    model.graph.outputs.append(logits)
    common_passes.RemoveUnusedNodesPass()(model)


def append_seed(graph: ir.Graph, logits: ir.Value, seed: ir.Value, classes: int) -> tuple[ir.Value, ir.Value]:
    """Replace the value `seed` by the unit seed u; return the label ŷ [B], and u [B, classes].

    u = softmax(z with z_ŷ at −∞) − onehot(ŷ). The true seed p − onehot(ŷ) is s·u, with the residual s = 1 − p_ŷ. The
    features are multiplied by s at the very end, outside the graph, so every signal stays of order one for any confidence.
    """
    emit = Emitter(graph, SEED_RULE)
    dtype = dtype_of(logits)
    label = emit("ArgMax", logits, axis=1, keepdims=1)
    predicted = emit("Equal", label, emit.constant(np.arange(classes)[None], np.int64))
    others = emit("Softmax", emit("Where", predicted, emit.constant(-np.inf, dtype), logits), axis=-1)
    unit_seed = emit("Where", predicted, emit.constant(-1, dtype), others)
    seed.replace_all_uses_with(unit_seed, replace_graph_outputs=True)
    flat = emit("Squeeze", label, emit.integers(1))
    flat.name = SIGNAL_LABEL
    flat.type, flat.shape = ir.TensorType(ir.DataType.INT64), ir.Shape(["batch"])
    return flat, unit_seed


def _named(graph: ir.Graph, name: str) -> ir.Value:
    for value in graph.outputs:
        if value.name == name:
            return value
    raise ModelError(
        f"the model has no output {name!r}: outputs are {_described(graph)}; choose one with --logits NAME"
    )


def _before_normaliser(output: ir.Value) -> ir.Value:
    output = _computed(output)
    node = output.producer()
    if node is None or node.op_type not in _NORMALISERS or attribute(node, "axis", -1) not in (-1, 1):
        return output
    source = node.inputs[0]
    return output if source is None else source


def _described(graph: ir.Graph) -> str:
    return ", ".join(f"{value.name} {value.shape if value.shape is not None else '[?]'}" for value in graph.outputs)
