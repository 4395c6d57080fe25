"""Einsum as transposes, one batched matrix product and reshapes, two operands at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import ascii_letters

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.emitter import Emitter, attribute, extents, origin_of
from gradscore.graph.nodes.probing import BATCH
from gradscore.graph.nodes.requirements import rank_of, refusal


def einsum(node: ir.Node, emit: Emitter) -> ir.Value:
    """Contract from left to right; a label goes as soon as neither the output nor a later operand has it."""
    terms, output = _parsed(node)
    (labels, value), *rest = zip(terms, node.inputs, strict=True)
    operand = _Operand.of(value, labels, node)
    for position, (labels, value) in enumerate(rest, start=1):
        needed = output if position == len(rest) else output + "".join(terms[position + 1 :])
        operand = _product(operand, _Operand.of(value, labels, node), needed, emit)
    operand = operand.summed(set(operand.labels) - set(output), emit)
    return operand.ordered(output, emit).value


def _parsed(node: ir.Node) -> tuple[list[str], str]:
    """Return each operand's labels and the output's, the ellipsis spelled out."""
    equation = attribute(node, "equation", b"")
    equation = (equation.decode() if isinstance(equation, bytes) else equation).replace(" ", "")
    left, arrow, output = equation.partition("->")
    free = [letter for letter in ascii_letters if letter not in equation]
    widths = [
        rank_of(value, node) - len(term.replace(".", ""))
        for term, value in zip(left.split(","), node.inputs, strict=True)
    ]
    widest = max(width for width in widths)
    terms = [
        term.replace("...", "".join(free[widest - width : widest]))
        for term, width in zip(left.split(","), widths, strict=True)
    ]
    if any(len(set(term)) != len(term) for term in terms):
        raise refusal(
            node, f"repeats a label in one operand ({equation}), which has no rule: take the diagonal by Gather"
        )
    every = "".join(terms)
    if arrow:
        return terms, output.replace("...", "".join(free[:widest]))
    once = sorted(label for label in set(every) if every.count(label) == 1 and label not in free)
    return terms, "".join([*free[:widest], *once])


@dataclass(frozen=True)
class _Operand:
    """A value, the label of each of its axes, the labels' extents, and which of them counts the samples."""

    value: ir.Value
    labels: str
    sizes: dict[str, int | None]
    sample: str
    node: ir.Node

    @classmethod
    def of(cls, value: ir.Value | None, labels: str, node: ir.Node) -> "_Operand":
        """Label a value's axes."""
        shape = extents(value)
        if value is None or shape is None or len(shape) != len(labels):
            raise refusal(node, f"labels an operand {labels!r} that has another rank")
        sample = next((label for label, size in zip(labels, value.shape or (), strict=True) if str(size) == BATCH), "")
        return cls(value, labels, dict(zip(labels, shape, strict=True)), sample, node)

    def ordered(self, labels: str, emit: Emitter) -> "_Operand":
        """Transpose to another order of the same labels."""
        if labels == self.labels:
            return self
        order = [self.labels.index(label) for label in labels]
        if self.value.const_value is not None:
            array = np.ascontiguousarray(self.value.const_value.numpy().transpose(order))
            return replace(self, value=emit.weight(array, origin_of(self.value), f"ordered_{labels}"), labels=labels)
        return replace(self, value=emit("Transpose", self.value, perm=order), labels=labels)

    def summed(self, labels: set[str], emit: Emitter) -> "_Operand":
        """Sum labels away."""
        axes = [axis for axis, label in enumerate(self.labels) if label in labels]
        if not axes:
            return self
        kept = "".join(label for label in self.labels if label not in labels)
        return replace(self, value=emit("ReduceSum", self.value, emit.integers(*axes), keepdims=0), labels=kept)

    def grouped(self, groups: Sequence[str], emit: Emitter) -> ir.Value:
        """Transpose and reshape to one axis a group of labels; an empty group is an axis of extent 1."""
        value = self.ordered("".join(groups), emit).value
        if all(len(group) == 1 for group in groups):
            return value
        if value.const_value is not None:
            return emit.reshaped(value, tuple(self._size(group) for group in groups))
        return emit("Reshape", value, emit.integers(*self.target(groups)))

    def target(self, groups: Sequence[str]) -> list[int]:
        """The extents of the groups for Reshape: 0 for a first axis of free size, −1 for one further."""
        sizes = [self._size(group) for group in groups]
        if sizes and sizes[0] < 0 and len(groups[0]) == 1 and self.labels[0] == groups[0]:
            sizes[0] = 0
        if sizes.count(-1) > 1:
            raise refusal(self.node, "has several axes of free size: export the model with fixed sizes")
        return sizes

    def _size(self, labels: str) -> int:
        known = [self.sizes[label] for label in labels]
        return -1 if None in known else int(np.prod([int(size or 0) for size in known], dtype=int))


def _product(left: _Operand, right: _Operand, needed: str, emit: Emitter) -> _Operand:
    """One MatMul [outer…, shared…, m, k] × [shared…, k, n].

    A weight stands on the right and has no sample axis, so that the left operand's axes stay as they are: all but the last
    of those that it alone has go to the front and are repeated over. Between two values they are flattened into m.
    """
    if left.value.const_value is not None and right.value.const_value is None:
        left, right = right, left
    left, right = (
        one.summed({label for label in one.labels if label not in needed + other.labels}, emit)
        for one, other in ((left, right), (right, left))
    )
    both = [label for label in left.labels if label in right.labels]
    shared = "".join(sorted((label for label in both if label in needed), key=lambda label: label != left.sample))
    summed = "".join(label for label in both if label not in needed)
    own = "".join(label for label in left.labels if label not in both)
    other = "".join(label for label in right.labels if label not in both)
    outer, rows = (own[:-1], own[-1:]) if left.sample not in shared else ("", own)
    product = emit(
        "MatMul", left.grouped([*outer, *shared, rows, summed], emit), right.grouped([*shared, summed, other], emit)
    )  # fmt: skip
    sizes = {
        **left.sizes,
        **{label: size for label, size in right.sizes.items() if size != 1 or label not in left.sizes},
    }
    result = _Operand(product, outer + shared + rows + other, sizes, left.sample or right.sample, left.node)
    if len(rows) == len(other) == 1:
        return result
    return replace(result, value=emit("Reshape", product, emit.integers(*_sizes_of(result, outer + shared))))


def _sizes_of(operand: _Operand, leading: str) -> list[int]:
    """Extents for Reshape that split the last two axes again; leading ones of free size stay as they are."""
    sizes = [operand.sizes[label] for label in operand.labels]
    free = [0 if axis < len(leading) else -1 for axis in range(len(sizes))]
    target = [free[axis] if size is None else size for axis, size in enumerate(sizes)]
    if target.count(-1) > 1:
        raise refusal(operand.node, "has several axes of free size: export the model with fixed sizes")
    return target
