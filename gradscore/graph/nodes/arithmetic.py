"""Arithmetic on graph values, written as in Python: each operation emits one node."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import DTypeLike

from gradscore.graph.nodes.emitter import Emitter


@dataclass(frozen=True)
class Number:
    """A graph value in formulas; plain numbers beside it become constants of its type."""

    value: ir.Value
    emit: Emitter
    dtype: DTypeLike = np.float32

    def op(self, op_type: str, *others: "Number | ir.Value | float", **attributes: object) -> "Number":
        """Emit an operator on this number and others."""
        inputs = [self._value_of(other) for other in others]
        return Number(self.emit(op_type, self.value, *inputs, **attributes), self.emit, self.dtype)

    def _value_of(self, other: "Number | ir.Value | float") -> ir.Value:
        if isinstance(other, Number):
            return other.value
        return other if isinstance(other, ir.Value) else self.emit.constant(other, self.dtype)

    def __add__(self, other: "Number | float") -> "Number":
        return self.op("Add", other)

    def __sub__(self, other: "Number | float") -> "Number":
        return self.op("Sub", other)

    def __mul__(self, other: "Number | float") -> "Number":
        return self.op("Mul", other)

    def __truediv__(self, other: "Number | float") -> "Number":
        return self.op("Div", other)

    def __rmul__(self, other: float) -> "Number":
        return self.op("Mul", other)

    def __neg__(self) -> "Number":
        return self.op("Neg")

    def total(self, axis: int, *, keepdims: int = 0) -> "Number":
        """Sum along an axis."""
        return self.op("ReduceSum", self.emit.integers(axis), keepdims=keepdims)

    def largest(self, axis: int, *, keepdims: int = 0) -> "Number":
        """Maximum along an axis."""
        return self.op("ReduceMax", self.emit.integers(axis), keepdims=keepdims)

    def smallest(self, axis: int, *, keepdims: int = 0) -> "Number":
        """Minimum along an axis."""
        return self.op("ReduceMin", self.emit.integers(axis), keepdims=keepdims)
