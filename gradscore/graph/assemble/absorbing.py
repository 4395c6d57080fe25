"""Scales and shifts of a convolution's output, moved into its weights where nothing else reads what lies between.

A scoring graph keeps batch norms apart, since they are layers of their own. A graph that needs no statistics of one computes
it as the plain classifier does: conv(x, w)·s + t = conv(x, w·s) + t, and runtimes then fuse what follows.
"""

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.emitter import Emitter, origin_of

_STEPS = {
    "Add": lambda scale, shift, number: (scale, shift + number),
    "Sub": lambda scale, shift, number: (scale, shift - number),
    "Mul": lambda scale, shift, number: (scale * number, shift * number),
    "Div": lambda scale, shift, number: (scale / number, shift / number),
}


def absorb_affine(graph: ir.Graph) -> None:
    """Fold what follows convolutions into them, in place; unused nodes and weights stay behind."""
    for node in list(graph):
        if node.op_type == "Conv" and (len(node.inputs) < 3 or _array(node.inputs[2]) is not None):
            _absorb(node, graph)


def _absorb(node: ir.Node, graph: ir.Graph) -> None:
    learned, output = node.inputs[1], node.outputs[0]
    weight, bias = _array(learned), _array(node.inputs[2]) if len(node.inputs) > 2 else None
    if learned is None or weight is None:
        return
    scale, shift = np.ones(len(weight)), np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
    last = output
    while (step := _only_reader(last)) is not None:
        number = _by_channel(step, last, len(weight), weight.ndim)
        if number is None or step.outputs[0].is_graph_output():
            break
        scale, shift = _STEPS[step.op_type](scale, shift, number)
        last = step.outputs[0]
    if last is output:
        return
    emit = Emitter(graph, "absorbed", node)
    scaled = (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(weight.dtype)
    node.replace_input_with(1, emit.weight(scaled, origin_of(learned), f"scaled for {output.name}"))
    node.resize_inputs(3)
    node.replace_input_with(2, emit.constant(shift, weight.dtype))
    last.replace_all_uses_with(output)


def _array(value: ir.Value | None) -> np.ndarray | None:
    tensor = value.const_value if value is not None else None
    return None if tensor is None or tensor.dtype != ir.DataType.FLOAT else tensor.numpy()


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def _by_channel(step: ir.Node, value: ir.Value, channels: int, rank: int) -> np.ndarray | None:
    """Return the numbers [channels] or [1] that a step applies, None where it is another kind of step."""
    if step.op_type not in _STEPS or (step.op_type in ("Sub", "Div") and step.inputs[0] is not value):
        return None
    array = _array(step.inputs[1] if step.inputs[0] is value else step.inputs[0])
    if array is None or array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    is_fitting = shape[1] in (1, channels) and all(extent == 1 for axis, extent in enumerate(shape) if axis != 1)
    return array.reshape(-1).astype(np.float64) if is_fitting else None
