"""LSTM, GRU and RNN unrolled over a fixed number of steps into dense layers.

The input's products with W are one dense layer over all positions; R and its bias are shared by every step, and their
gradients are the sums over the steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from gradscore.errors import UnsupportedOpError
from gradscore.graph.nodes.emitter import Emitter, attribute, dtype_of, extents, origin_of, replace_output


@dataclass(frozen=True)
class _Cell:
    """One direction's recurrent weights, transposed for MatMul."""

    recurrence: ir.Value
    bias: ir.Value | None

    def product(self, hidden: ir.Value, emit: Emitter) -> ir.Value:
        """H·Rᵀ + b."""
        product = emit("MatMul", hidden, self.recurrence)
        return product if self.bias is None else emit("Add", product, self.bias)


Step = Callable[[Emitter, ir.Value, ir.Value, tuple[ir.Value, ...]], tuple[ir.Value, ...]]


def _lstm_step(
    emit: Emitter, given: ir.Value, recurrent: ir.Value, state: tuple[ir.Value, ...]
) -> tuple[ir.Value, ...]:
    """c = f·c + i·g, h = o·tanh(c); gates in ONNX's order i, o, f, g."""
    enter, leave, keep, new = _gates(emit, emit("Add", given, recurrent), 4)
    cell = emit(
        "Add", emit("Mul", emit("Sigmoid", keep), state[1]), emit("Mul", emit("Sigmoid", enter), emit("Tanh", new))
    )  # fmt: skip
    return emit("Mul", emit("Sigmoid", leave), emit("Tanh", cell)), cell


def _gru_step(emit: Emitter, given: ir.Value, recurrent: ir.Value, state: tuple[ir.Value, ...]) -> tuple[ir.Value, ...]:
    """h = (1 − z)·tanh(x_h + r·h_h) + z·h; gates in ONNX's order z, r, h, the reset after the product."""
    update_x, reset_x, new_x = _gates(emit, given, 3)
    update_h, reset_h, new_h = _gates(emit, recurrent, 3)
    update = emit("Sigmoid", emit("Add", update_x, update_h))
    reset = emit("Sigmoid", emit("Add", reset_x, reset_h))
    new = emit("Tanh", emit("Add", new_x, emit("Mul", reset, new_h)))
    return (emit("Add", new, emit("Mul", update, emit("Sub", state[0], new))),)


def _rnn_step(emit: Emitter, given: ir.Value, recurrent: ir.Value, state: tuple[ir.Value, ...]) -> tuple[ir.Value, ...]:  # noqa: ARG001 - the steps share a signature
    """h = tanh(x + h·R)."""
    return (emit("Tanh", emit("Add", given, recurrent)),)


_STEPS: dict[str, tuple[Step, int, list[str]]] = {
    "LSTM": (_lstm_step, 2, ["Sigmoid", "Tanh", "Tanh"]),
    "GRU": (_gru_step, 1, ["Sigmoid", "Tanh"]),
    "RNN": (_rnn_step, 1, ["Tanh"]),
}


def unroll(node: ir.Node, emit: Emitter) -> ir.Value:
    """Emit the steps of a recurrent layer and return Y [T, directions, B, h]; Y_h and Y_c are put in place as well."""
    step, states, activations = _STEPS[node.op_type]
    _refuse_variants(node, activations)
    directions = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[
        attribute(node, "direction", "forward")
    ]
    runs = [_direction(node, emit, step, states, number, backwards) for number, backwards in enumerate(directions)]
    sequences = [
        emit("Concat", *(emit("Unsqueeze", hidden, emit.integers(0, 1)) for hidden in hiddens), axis=0)
        for hiddens, _ in runs
    ]
    for position in range(min(states, len(node.outputs) - 1)):
        lasts = [emit("Unsqueeze", final[position], emit.integers(0)) for _, final in runs]
        replace_output(node.outputs[1 + position], _joined(emit, lasts, 0))
    return _joined(emit, sequences, 1)


def _direction(
    node: ir.Node, emit: Emitter, step: Step, states: int, number: int, backwards: bool
) -> tuple[list[ir.Value], tuple[ir.Value, ...]]:  # fmt: skip
    data = node.inputs[0]
    shape = extents(data)
    if data is None or shape is None or shape[0] is None:
        raise UnsupportedOpError(
            f"node {node.name!r} ({node.op_type}) has a free number of steps: export it with a fixed length"
        )
    length = shape[0]
    weight, recurrence = (_matrix(node.inputs[position], number, node, emit) for position in (1, 2))
    given, bias = emit("MatMul", data, weight), None
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        own, bias = _biases(node.inputs[3], number, node, emit)
        given = emit("Add", given, own)
    steps = [given] if length == 1 else list(emit.emit("Split", (given,), length, {"axis": 0, "num_outputs": length}))
    steps = [emit("Squeeze", one, emit.integers(0)) for one in steps]
    cell, state = _Cell(recurrence, bias), _initial(node, emit, states, number)
    hiddens = []
    for one in reversed(steps) if backwards else steps:
        state = step(emit, one, cell.product(state[0], emit), state)
        hiddens.append(state[0])
    return hiddens[::-1] if backwards else hiddens, state


def _initial(node: ir.Node, emit: Emitter, states: int, number: int) -> tuple[ir.Value, ...]:
    """Return the initial states [B, h]: those given, else zeros."""
    found = []
    for position in (5, 6)[:states]:
        given = node.inputs[position] if len(node.inputs) > position else None
        if given is not None:
            found.append(emit("Gather", given, emit.constant(number, np.int64), axis=0))
            continue
        batch = emit("Shape", node.inputs[0], start=1, end=2)
        size = emit("Concat", batch, emit.integers(attribute(node, "hidden_size", 0)), axis=0)
        found.append(emit("Expand", emit.constant(0, dtype_of(node.inputs[0])), size))
    return tuple(found)


def _matrix(value: ir.Value | None, number: int, node: ir.Node, emit: Emitter) -> ir.Value:
    array = _array(value, node)
    return emit.weight(np.ascontiguousarray(array[number].T), _origin(value), f"direction_{number}")


def _biases(value: ir.Value | None, number: int, node: ir.Node, emit: Emitter) -> tuple[ir.Value, ir.Value]:
    halves = np.split(_array(value, node)[number], 2)
    own, recurrent = (
        emit.weight(half, _origin(value), f"direction_{number}_{name}")
        for half, name in zip(halves, ("w", "r"), strict=True)
    )
    return own, recurrent


def _gates(emit: Emitter, value: ir.Value, count: int) -> Sequence[ir.Value]:
    return emit.emit("Split", (value,), count, {"axis": 1, "num_outputs": count})


def _joined(emit: Emitter, values: list[ir.Value], axis: int) -> ir.Value:
    return values[0] if len(values) == 1 else emit("Concat", *values, axis=axis)


def _refuse_variants(node: ir.Node, activations: list[str]) -> None:
    given = attribute(node, "activations", activations)
    variants = {
        "activations": [given[start : start + len(activations)] for start in range(0, len(given), len(activations))]
        != [activations] * (len(given) // len(activations)),
        "clip": attribute(node, "clip", None) is not None,
        "layout": attribute(node, "layout", 0) != 0,
        "input_forget": attribute(node, "input_forget", 0) != 0,
        "linear_before_reset=0": node.op_type == "GRU" and attribute(node, "linear_before_reset", 0) == 0,
        "sequence_lens": len(node.inputs) > 4 and node.inputs[4] is not None,
        "peepholes": len(node.inputs) > 7 and node.inputs[7] is not None,
    }
    for name, present in variants.items():
        if present:
            raise UnsupportedOpError(
                f"node {node.name!r} ({node.op_type}) uses {name}, which is not unrolled: export it without"
            )


def _array(value: ir.Value | None, node: ir.Node) -> np.ndarray:
    if value is None or value.const_value is None:
        raise UnsupportedOpError(
            f"node {node.name!r} ({node.op_type}) computes its weights: export it with constants folded"
        )
    return value.const_value.numpy()


def _origin(value: ir.Value | None) -> str:
    return "" if value is None else origin_of(value)
