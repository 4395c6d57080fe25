"""A parameter's per-sample gradient as a value of the graph, in the forms that its moments can be read from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal

import numpy as np
import onnx_ir as ir

from gradscore.errors import UnsupportedOpError
from gradscore.graph.nodes.emitter import Emitter, dtype_of, extents
from gradscore.model.metadata import Parameter, Reduction

Values = Mapping[str, ir.Value]


@dataclass(frozen=True)
class Explicit:
    """A gradient [B, count] that stands in the graph, in one piece or, with what lies `beside`, in several."""

    value: ir.Value
    count: int
    beside: tuple[ir.Value, ...] = ()


@dataclass(frozen=True)
class Product:
    """All products of one number of the first gradient and one of the second."""

    first: Explicit
    second: Explicit

    @property
    def count(self) -> int:
        """Number of products."""
        return self.first.count * self.second.count

    def explicit(self, emit: Emitter) -> Explicit:
        """Emit the gradient itself."""
        standing = emit("Unsqueeze", self.second.value, emit.integers(2))
        lying = emit("Unsqueeze", self.first.value, emit.integers(1))
        return Explicit(flat(emit("Mul", standing, lying), emit), self.count)


@dataclass(frozen=True)
class Dense(Product):
    """A product of so few numbers that it may stand in the graph once its mean is known."""

    def with_second(self, emit: Emitter) -> "Dense":
        """Lay the second factor itself beside the products: another 1 in the first."""
        padded = emit("Pad", self.first.value, emit.integers(0, 0, 0, 1), emit.constant(1, np.float32))
        return Dense(Explicit(padded, self.first.count + 1), self.second)


@dataclass(frozen=True)
class Contraction:
    """Sums over positions t of the products of one number of `rows` and one of `columns`: a matrix of [M, K] a group.

    `rows` [B, *groups, M, T] and `columns` [B, *groups, K, T] where positions lie on the axis −1; [B, T, M] and [B, T, K]
    where they lie on −2.
    """

    rows: ir.Value
    columns: ir.Value
    lines: tuple[int, ...]  # *groups, M
    width: int  # K
    positions: Literal[-1, -2] = -1

    @property
    def count(self) -> int:
        """Number of sums."""
        return prod(self.lines) * self.width

    def product(self, rows: ir.Value, columns: ir.Value, emit: Emitter) -> ir.Value:
        """Emit the sums over positions: [B, *groups, M, K] of factors that lie as these do."""
        around = list(range(1 + len(self.lines)))
        turned = [*around[:-1], around[-1] + 1, around[-1]]
        if self.positions == -1:
            return emit("MatMul", rows, emit("Transpose", columns, perm=turned))
        return emit("MatMul", emit("Transpose", rows, perm=turned), columns)

    def explicit(self, emit: Emitter) -> Explicit:
        """Emit the gradient itself, whichever way round has the smaller factor turned."""
        is_turned = (self.lines[-1] < self.width) == (self.positions == -1)
        pair = (self.columns, self.rows) if is_turned else (self.rows, self.columns)
        return Explicit(flat(self.product(*pair, emit), emit), self.count)


@dataclass(frozen=True)
class Halved(Contraction):
    """A contraction whose positions come in several parts, which see the same planes of the input.

    `parts` [B, *groups, M, T] a part; `planes` [B, *groups, channels · planes, T]; `seen`, of each part the planes that its
    kernel's places see; `channels` of all groups.
    """

    parts: tuple[ir.Value, ...] = field(kw_only=True)
    planes: ir.Value = field(kw_only=True)
    seen: tuple[tuple[int, ...], ...] = field(kw_only=True)
    channels: int = field(kw_only=True)

    def explicit(self, emit: Emitter) -> Explicit:
        """Emit the gradient itself: of every part the products with all planes, and of these the ones that it sees."""
        apart = emit.integers(0, self.channels, -1, self.lines[-1])
        sums = []
        for part, seen in zip(self.parts, self.seen, strict=True):
            products = emit("Reshape", self.product(self.planes, part, emit), apart)
            sums.append(_picked(products, seen, emit))
        return Explicit(flat(emit("Add", *sums) if len(sums) > 1 else sums[0], emit), self.count)


def _picked(products: ir.Value, planes: Sequence[int], emit: Emitter) -> ir.Value:
    """Pick planes of [B, channels, planes, M]; those that follow one another in half the time."""
    if list(planes) == list(range(planes[0], planes[0] + len(planes))):
        return emit("Slice", products, emit.integers(planes[0]), emit.integers(planes[-1] + 1), emit.integers(2))
    return emit("Gather", products, emit.integers(*planes), axis=2)


@dataclass(frozen=True)
class Large:
    """A gradient whose very making would take too much memory for a whole batch."""

    rule: "GradientRule"
    reduction: Reduction
    parameter: Parameter

    @property
    def count(self) -> int:
        """Number of weights."""
        return self.parameter.count


@dataclass(frozen=True)
class Sparse:
    """Rows [B, T, d] of a table [vocabulary, d], each once; `kept` [B, T, 1] is 1 where a row stands, the others are zeros."""

    rows: ir.Value
    kept: ir.Value
    vocabulary: int
    width: int

    @property
    def count(self) -> int:
        """Number of the table's entries."""
        return self.vocabulary * self.width


Gradient = Explicit | Product | Contraction | Large | Sparse


class GradientRule(ABC):
    """How one kernel's gradient follows from the values that the reduction names."""

    kernel: str

    @abstractmethod
    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        """Emit the gradient of one parameter."""

    def making(self, reduction: Reduction, parameter: Parameter, values: Values) -> int:  # noqa: ARG002 - most need none
        """Return how many numbers a sample takes on the way to its gradient, beyond what is in the graph already."""
        return 0


def leading(value: ir.Value, emit: Emitter) -> ir.Value:
    """Return batch and channels of a value's shape."""
    return emit("Shape", value, start=0, end=2)


def flat(value: ir.Value, emit: Emitter) -> ir.Value:
    """Return [B, n] in single precision."""
    return emit("Reshape", single(value, emit), emit.integers(0, -1))


def single(value: ir.Value, emit: Emitter) -> ir.Value:
    """Return a value in single precision."""
    return value if dtype_of(value) == np.float32 else emit("Cast", value, to=ir.DataType.FLOAT)


def activation_of(reduction: Reduction) -> str:
    """Return the name of the value that holds a layer's input."""
    assert reduction.activation is not None, reduction  # noqa: S101 - the layer rules always name it for these kernels
    return reduction.activation


def dense_sizes(reduction: Reduction, parameter: Parameter) -> tuple[int, int]:
    """Return the sizes of input and output of a dense layer's weight, however it stands."""
    first, second = parameter.shape
    return (second, first) if (reduction.attributes or {}).get("outputs_first") else (first, second)


def shape_of(value: ir.Value, named: ir.Value) -> tuple[int | None, ...]:
    """Return a value's shape, or that of the value that it was made of."""
    shape = extents(value) or extents(named)
    if shape is None:
        raise UnsupportedOpError(
            f"value {named.name!r} has unknown rank, so its statistics cannot be put into the graph"
        )
    return shape


def spatial(value: ir.Value) -> tuple[int, ...]:
    """Return the fixed sizes behind batch and channels."""
    sizes = shape_of(value, value)[2:]
    if None in sizes:
        raise UnsupportedOpError(
            f"value {value.name!r} has no fixed size, which unpooling needs inside the graph: export the model with one"
        )
    return tuple(int(size or 0) for size in sizes)
