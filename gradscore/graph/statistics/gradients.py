"""Forms of a parameter's per-sample gradient in the graph, from which its moments are computed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal

import numpy as np
import onnx_ir as ir

from gradscore.errors import UnsupportedOpError
from gradscore.graph.nodes.emitter import Emitter, dtype_of, extents
from gradscore.model.layer_table import Parameter, Reduction

Values = Mapping[str, ir.Value]


@dataclass(frozen=True)
class Explicit:
    """A gradient [B, count] that the graph holds as a tensor, with further pieces in `beside`."""

    value: ir.Value
    count: int
    beside: tuple[ir.Value, ...] = ()


@dataclass(frozen=True)
class Product:
    """An outer product: every number of `first` times every number of `second`."""

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
class SmallProduct(Product):
    """An outer product small enough for the graph to compute it, once its mean is known."""

    def with_second(self, emit: Emitter) -> "SmallProduct":
        """Append the second factor itself to the products: the first factor gets one more number, 1."""
        padded = emit("Pad", self.first.value, emit.integers(0, 0, 0, 1), emit.constant(1, np.float32))
        return SmallProduct(Explicit(padded, self.first.count + 1), self.second)


@dataclass(frozen=True)
class Contraction:
    """A matrix product of `rows` and `columns` over positions t: [M, K] per group.

    If positions are axis −1, `rows` is [B, *groups, M, T] and `columns` is [B, *groups, K, T]. If they are axis −2, the
    two are [B, T, M] and [B, T, K].
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
        """Emit the sums over positions [B, *groups, M, K], of factors with this layout."""
        around = list(range(1 + len(self.lines)))
        turned = [*around[:-1], around[-1] + 1, around[-1]]
        if self.positions == -1:
            return emit("MatMul", rows, emit("Transpose", columns, perm=turned))
        return emit("MatMul", emit("Transpose", rows, perm=turned), columns)

    def explicit(self, emit: Emitter) -> Explicit:
        """Emit the gradient itself, in the order that transposes the smaller factor."""
        is_turned = (self.lines[-1] < self.width) == (self.positions == -1)
        pair = (self.columns, self.rows) if is_turned else (self.rows, self.columns)
        return Explicit(flat(self.product(*pair, emit), emit), self.count)


@dataclass(frozen=True)
class Halved(Contraction):
    """A contraction whose positions come in several parts, which see the same planes of the input.

    Each of `parts` is [B, *groups, M, T], and `planes` is [B, *groups, channels · planes, T]. `seen` lists, for each
    part, the plane that each kernel place sees. `channels` counts the channels of all groups.
    """

    parts: tuple[ir.Value, ...] = field(kw_only=True)
    planes: ir.Value = field(kw_only=True)
    seen: tuple[tuple[int, ...], ...] = field(kw_only=True)
    channels: int = field(kw_only=True)

    def explicit(self, emit: Emitter) -> Explicit:
        """Emit the gradient itself: multiply each part by all planes, then pick those that it sees."""
        apart = emit.integers(0, self.channels, -1, self.lines[-1])
        sums = []
        for part, seen in zip(self.parts, self.seen, strict=True):
            products = emit("Reshape", self.product(self.planes, part, emit), apart)
            sums.append(_picked(products, seen, emit))
        return Explicit(flat(emit("Add", *sums) if len(sums) > 1 else sums[0], emit), self.count)


def _picked(products: ir.Value, planes: Sequence[int], emit: Emitter) -> ir.Value:
    """Pick planes of [B, channels, planes, M]; for adjacent planes, Slice takes half the time."""
    if list(planes) == list(range(planes[0], planes[0] + len(planes))):
        return emit("Slice", products, emit.integers(planes[0]), emit.integers(planes[-1] + 1), emit.integers(2))
    return emit("Gather", products, emit.integers(*planes), axis=2)


@dataclass(frozen=True)
class Large:
    """A gradient that needs too much memory to be computed for a whole batch at once."""

    rule: "GradientRule"
    reduction: Reduction
    parameter: Parameter

    @property
    def count(self) -> int:
        """Number of weights."""
        return self.parameter.count


@dataclass(frozen=True)
class Sparse:
    """Rows [B, T, d] of a table [vocabulary, d] that is zero elsewhere.

    `kept` [B, T, 1] is 1 the first time that a row occurs, and 0 where it is repeated.
    """

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
        """Return how many intermediate numbers per sample the gradient needs, beyond the graph's own values."""
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
    """Return the input and output sizes of a dense layer's weight, in either layout."""
    first, second = parameter.shape
    return (second, first) if (reduction.attributes or {}).get("outputs_first") else (first, second)


def shape_of(value: ir.Value, named: ir.Value) -> tuple[int | None, ...]:
    """Return a value's shape, or that of `named`, which it was computed from."""
    shape = extents(value) or extents(named)
    if shape is None:
        raise UnsupportedOpError(
            f"value {named.name!r} has unknown rank, so the graph cannot compute its statistics: export the model with "
            "known shapes"
        )
    return shape


def spatial(value: ir.Value) -> tuple[int, ...]:
    """Return the fixed sizes after batch and channels."""
    sizes = shape_of(value, value)[2:]
    if None in sizes:
        raise UnsupportedOpError(
            f"value {value.name!r} has no fixed size, but unpooling in the graph needs one: export the model with fixed sizes"
        )
    return tuple(int(size or 0) for size in sizes)
