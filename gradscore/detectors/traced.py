"""An array that is not there yet: NumPy's own operations on it become ONNX nodes.

So each formula is written once, in NumPy. Given arrays, it computes. Given traced arrays, it emits the same arithmetic. NumPy
calls `__array_ufunc__` (NEP 13) for its operators and elementary functions.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

_DOUBLE = 11  # onnx.TensorProto.DOUBLE; scoring does not wait for onnx

UFUNCS: Mapping[Callable[..., Any], str] = MappingProxyType(
    {
        np.absolute: "Abs",
        np.add: "Add",
        np.divide: "Div",
        np.equal: "Equal",
        np.exp: "Exp",
        np.greater: "Greater",
        np.less: "Less",
        np.log: "Log",
        np.matmul: "MatMul",
        np.maximum: "Max",
        np.minimum: "Min",
        np.multiply: "Mul",
        np.negative: "Neg",
        np.power: "Pow",
        np.sqrt: "Sqrt",
        np.subtract: "Sub",
    }
)
"""The operator of each of NumPy's functions."""


class Emit(Protocol):
    """Appends a node, and returns the name of its output number `which`. Arrays among the inputs become constants."""

    def __call__(self, operator: str, *inputs: str | npt.ArrayLike, which: int = 0, **attributes: Any) -> str:
        """Append the node."""
        ...


class Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """One value of the graph that is being emitted."""

    def __init__(self, emit: Emit, name: str) -> None:
        self.emit = emit
        self.name = name

    def __array_ufunc__(self, function: Callable[..., Any], method: str, *inputs: Any, **options: Any) -> "Traced":
        if method != "__call__" or options or function not in UFUNCS:
            raise TypeError(f"{function} has no operator")
        return self.node(UFUNCS[function], *inputs)

    def node(self, operator: str, *inputs: Any, **attributes: Any) -> "Traced":
        """Append a node. Numbers among its inputs become doubles, other than indices and masks."""
        return Traced(self.emit, self.emit(operator, *(_given(one) for one in inputs), **attributes))

    def sum(self, axis: int, *, keepdims: bool = False) -> "Traced":
        """Return the sums along an axis."""
        return self.node("ReduceSum", self, np.array([axis]), keepdims=int(keepdims))

    def max(self, axis: int, *, keepdims: bool = False) -> "Traced":
        """Return the largest values along an axis."""
        return self.node("ReduceMax", self, axes=[axis], keepdims=int(keepdims))

    def min(self, axis: int, *, keepdims: bool = False) -> "Traced":
        """Return the smallest values along an axis."""
        return self.node("ReduceMin", self, axes=[axis], keepdims=int(keepdims))

    def mean(self, axis: int, *, keepdims: bool = False) -> "Traced":
        """Return the means along an axis."""
        return self.node("ReduceMean", self, axes=[axis], keepdims=int(keepdims))

    def column(self) -> "Traced":
        """Return the values [N] as a column [N, 1]."""
        return self.node("Unsqueeze", self, np.array([1]))

    def chosen(self, places: "Traced") -> "Traced":
        """Return [N, k], the values of each row at its own places [N, k]."""
        return self.node("GatherElements", self, places, axis=1)

    def pick(self, place: int) -> "Traced":
        """Return one column, [N]."""
        return self.node("Gather", self, np.array(place), axis=1)

    def of(self, table: Any) -> "Traced":
        """Return the rows of a table at these places."""
        return self.node("Gather", table, self, axis=0)

    def largest(self, count: int) -> "Traced":
        """Return the places [N, count] of the largest values of each row, in falling order; of equal ones the first."""
        return self.node("TopK", self, np.array([count]), axis=1, which=1)

    def replaced(self, places: "Traced", values: "Traced") -> "Traced":
        """Return a copy in which each row has other values [N, k] at its places [N, k]."""
        return self.node("ScatterElements", self, places, values, axis=1)

    def where(self, yes: Any, no: Any) -> "Traced":
        """Return `yes` where this mask is true, else `no`."""
        return self.node("Where", self, yes, no)

    def as_double(self) -> "Traced":
        """Return a mask as numbers 0 and 1."""
        return self.node("Cast", self, to=_DOUBLE)


def _given(value: Any) -> Any:
    if isinstance(value, Traced):
        return value.name
    array = np.asarray(value)
    return (
        value
        if isinstance(value, np.ndarray) and array.dtype in (np.float64, np.int64, np.bool_)
        else array.astype(float)
    )
