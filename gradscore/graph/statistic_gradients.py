"""The reductions of the layer table as standard ONNX: a parameter's per-sample gradient as a value of the graph.

One rule a kernel, in `RULES`. A rule gives the gradient itself, flat [B, n]; or, where it is an outer product, its two factors,
whose moments make its own; or, for embeddings, moments of the rows that were looked up.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import onnx_ir as ir

from gradscore.errors import UnsupportedOpError
from gradscore.graph.emitter import Emitter, dtype_of, extents
from gradscore.metadata import Parameter, Reduction

Values = Mapping[str, ir.Value]


@dataclass(frozen=True)
class Explicit:
    """A gradient [B, count] that stands in the graph."""

    value: ir.Value
    count: int


@dataclass(frozen=True)
class Product:
    """All products of one number of the first gradient and one of the second."""

    first: Explicit
    second: Explicit

    @property
    def count(self) -> int:
        """Number of products."""
        return self.first.count * self.second.count


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


Gradient = Explicit | Product | Sparse


class GradientRule(ABC):
    """How one kernel's gradient follows from the values that the reduction names."""

    kernel: str

    @abstractmethod
    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        """Emit the gradient of one parameter."""


class DirectRule(GradientRule):
    """G = δ."""

    kernel = "direct"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        return Explicit(_flat(values[reduction.delta], emit), parameter.count)


class WholeRule(GradientRule):
    """G = δ of the batch's only sample."""

    kernel = "whole"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        delta = _single(values[reduction.delta], emit)
        return Explicit(emit("Reshape", delta, emit.integers(1, -1)), parameter.count)


class PositionSumRule(GradientRule):
    """G = Σ_t δ_t, channels first."""

    kernel = "position_sum"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        delta = _single(values[reduction.delta], emit)
        axes = range(2, len(_shape(delta, values[reduction.delta])))
        summed = emit("ReduceSum", delta, emit.integers(*axes), keepdims=0) if axes else delta
        return Explicit(summed, parameter.count)


class SequenceSumRule(GradientRule):
    """G = Σ_t δ_t, channels last."""

    kernel = "sequence_sum"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        delta = _single(values[reduction.delta], emit)
        return Explicit(emit("ReduceSum", delta, emit.integers(1), keepdims=0), parameter.count)


class OuterRule(GradientRule):
    """G = δ aᵀ."""

    kernel = "outer"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        inputs, outputs = _dense_sizes(reduction, parameter)
        return Product(
            Explicit(_flat(values[_activation(reduction)], emit), inputs),
            Explicit(_flat(values[reduction.delta], emit), outputs),
        )


class SequenceRule(GradientRule):
    """G = Σ_t δ_t a_tᵀ; an outer product where there is one position."""

    kernel = "sequence"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        source, target = values[_activation(reduction)], values[reduction.delta]
        if 1 in ((extents(source) or ())[1:2] + (extents(target) or ())[1:2]):
            return OuterRule().gradient(reduction, parameter, values, emit)
        turned = emit("Transpose", _single(target, emit), perm=[0, 2, 1])
        return Explicit(_flat(emit("MatMul", turned, _single(source, emit)), emit), parameter.count)


class ConvRule(GradientRule):
    """G[m, c·k] = Σ_t δ[m, t] · U[c·k, t] with the unfolded input U: a batched matrix product."""

    kernel = "conv"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        window = Window.of(reduction.attributes or {})
        unfolded = window.unfold(_single(values[_activation(reduction)], emit), emit)
        delta = values[reduction.delta]
        one_position = set((extents(delta) or (None, None, None))[2:]) == {1}
        return _contracted(unfolded, _single(delta, emit), window, parameter, emit, one_position=one_position)


class UnpooledConvRule(GradientRule):
    """The same where δ is known behind a max pool.

    Windows that lie side by side keep their δ with the cell that holds the first maximum, and the input is unfolded cell by
    cell; any other pool's δ goes back to full resolution first.
    """

    kernel = "unpooled_conv"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        attributes = reduction.attributes or {}
        window, pool = Window.of(attributes["geometry"]), Window.of(attributes["pool"])
        source = _single(values[_activation(reduction)], emit)
        seen, delta = values[str(reduction.pooled)], values[reduction.delta]
        full, pooled = _spatial(seen), _spatial(delta)
        side_by_side = pool.strides == pool.kernel and not any(pool.pads) and set(pool.dilations) == {1}
        floor = tuple(size // step for size, step in zip(full, pool.strides, strict=True))
        if side_by_side and floor == pooled:
            cells = _first_maxima(_single(seen, emit), _single(delta, emit), pool, emit)
            return _contracted(window.unfold(source, emit, cells=pool.kernel), cells, window, parameter, emit)
        spread = _unpooled(_single(seen, emit), _single(delta, emit), pool, emit, ceil=pool.output(full) != pooled)
        return _contracted(window.unfold(source, emit), spread, window, parameter, emit)


class EmbeddingRule(GradientRule):
    """Row i of G = Σ of δ_t over the positions whose id is i, found by comparing positions with one another.

    Only the first position of an id keeps the sum, so that T × T numbers stand for a vocabulary of any size.
    """

    kernel = "embedding"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        vocabulary = int((reduction.attributes or {})["vocabulary"])
        ids, delta = values[_activation(reduction)], _single(values[reduction.delta], emit)
        zero, size = (emit.constant(number, dtype_of(ids)) for number in (0, vocabulary))
        rows = emit("Where", emit("Less", ids, zero), emit("Add", ids, size), ids)
        across, along = emit("Unsqueeze", rows, emit.integers(2)), emit("Unsqueeze", rows, emit.integers(1))
        same = emit("Cast", emit("Equal", across, along), to=ir.DataType.FLOAT)
        # Row t of the lower triangle without its diagonal tells which earlier positions hold the id of position t.
        earlier = emit("Trilu", same, emit.constant(-1, np.int64), upper=0)
        repeated = emit("ReduceMax", earlier, emit.integers(2), keepdims=1)
        kept = emit("Sub", emit.constant(1, np.float32), repeated)
        return Sparse(emit("MatMul", same, delta), kept, vocabulary, parameter.shape[-1])


RULES: dict[str, GradientRule] = {
    rule.kernel: rule
    for rule in (
        ConvRule(),
        DirectRule(),
        EmbeddingRule(),
        OuterRule(),
        PositionSumRule(),
        SequenceRule(),
        SequenceSumRule(),
        UnpooledConvRule(),
        WholeRule(),
    )
}


@dataclass(frozen=True)
class Window:
    """Where a convolution's kernel, or a pool's window, lies on its input."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, attributes: Mapping[str, Sequence[int] | int]) -> "Window":
        """Read a reduction's attributes."""
        kernel, strides, dilations, pads = (
            tuple(int(number) for number in attributes[name])  # type: ignore[union-attr]  # lists but for groups
            for name in ("kernel", "strides", "dilations", "pads")
        )
        return cls(kernel, strides, dilations, pads, int(attributes.get("groups", 1)))  # type: ignore[arg-type]

    def output(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Number of positions by axis."""
        rank = len(self.kernel)
        padded = [size + self.pads[axis] + self.pads[rank + axis] for axis, size in enumerate(spatial)]
        return tuple(
            (size - step * (extent - 1) - 1) // stride + 1
            for size, extent, stride, step in zip(padded, self.kernel, self.strides, self.dilations, strict=True)
        )

    def unfold(self, value: ir.Value, emit: Emitter, cells: Sequence[int] = ()) -> ir.Value:
        """Lay out what each kernel place sees: [B, C, *in] to [B·C, kernel places (· cells), *positions].

        A convolution of every channel by kernels that hold a single 1. With `cells`, the window sizes of a pool whose
        windows lie side by side on the convolution's output, positions are the pool's and each cell has a kernel of its own.
        """
        value, pads = self._padded(value, emit)
        cells = tuple(cells) or (1,) * len(self.kernel)
        places = [
            [place * step + cell * stride for place, cell in product(range(extent), range(size))]
            for extent, step, stride, size in zip(self.kernel, self.dilations, self.strides, cells, strict=True)
        ]
        reach = [max(offsets) + 1 for offsets in places]
        shape = [-1, 1, *[0] * len(self.kernel)]
        return emit(
            "Conv",
            emit("Reshape", value, emit.integers(*shape)),
            emit.constant(_one_hot(self.kernel, cells, places, reach), np.float32),
            strides=[stride * size for stride, size in zip(self.strides, cells, strict=True)],
            kernel_shape=reach,
            pads=pads,
        )

    def _padded(self, value: ir.Value, emit: Emitter) -> tuple[ir.Value, list[int]]:
        """Leave pads to the convolution, unless one crops."""
        if min(self.pads) >= 0:
            return value, list(self.pads)
        rank = len(self.kernel)
        around = emit.integers(0, 0, *self.pads[:rank], 0, 0, *self.pads[rank:])
        return emit("Pad", value, around), [0] * (2 * rank)


def _one_hot(
    kernel: Sequence[int], cells: Sequence[int], places: list[list[int]], reach: list[int]
) -> np.ndarray:  # fmt: skip
    """Kernels [places · cells, 1, *reach] that pick one number each, the kernel's places outermost, both row-major."""
    order = product(product(*map(range, kernel)), product(*map(range, cells)))
    picked = [
        tuple(places[axis][place[axis] * cells[axis] + cell[axis]] for axis in range(len(kernel)))
        for place, cell in order
    ]
    kernels = np.zeros((len(picked), 1, *reach), dtype=np.float32)
    for index, at in enumerate(picked):
        kernels[(index, 0, *at)] = 1
    return kernels


def _contracted(
    unfolded: ir.Value, delta: ir.Value, window: Window, parameter: Parameter, emit: Emitter, *, one_position: bool = False
) -> Gradient:  # fmt: skip
    """Sum over positions: U [B·C, places · …, *positions] and δ [B, M, …] to G, per group."""
    filters, channels, places, groups = parameter.shape[0], parameter.shape[1], prod(window.kernel), window.groups
    if one_position and groups == 1:
        flat = emit("Reshape", unfolded, emit.integers(-1, channels * places))
        return Product(Explicit(flat, channels * places), Explicit(_flat(delta, emit), filters))
    batch = emit("Shape", delta, start=0, end=1)
    split = [groups] if groups > 1 else []
    columns = emit("Concat", batch, emit.integers(*split, channels * places, -1), axis=0)
    rows = emit("Concat", batch, emit.integers(*split, filters // groups, -1), axis=0)
    turned = [*range(len(split) + 1), len(split) + 2, len(split) + 1]
    seen = emit("Transpose", emit("Reshape", unfolded, columns), perm=turned)
    return Explicit(_flat(emit("MatMul", emit("Reshape", delta, rows), seen), emit), parameter.count)


def _first_maxima(seen: ir.Value, delta: ir.Value, pool: Window, emit: Emitter) -> ir.Value:
    """δ of each window at the cell that holds its first maximum, 0 at the others: [B, M, *pooled, …] to [B, M, cells · …].

    What no earlier cell took is passed on; the last cell takes the rest.
    """
    count = prod(pool.kernel)
    outer = emit.integers(0, 0, 1, -1)
    cells = emit(
        "Reshape", pool.unfold(seen, emit), emit("Concat", _leading(delta, emit), emit.integers(count, -1), axis=0)
    )
    rest, parts = emit("Reshape", delta, outer), []
    largest = emit("ReduceMax", cells, emit.integers(2), keepdims=1)
    is_largest = emit("Cast", emit("Equal", cells, largest), to=ir.DataType.FLOAT)
    for mask in emit.emit("Split", [is_largest], count, {"axis": 2, "num_outputs": count})[:-1]:
        parts.append(emit("Mul", rest, mask))  # a tenth of the time of Where
        rest = emit("Sub", rest, parts[-1])
    return emit("Concat", *parts, rest, axis=2)


def _unpooled(seen: ir.Value, delta: ir.Value, pool: Window, emit: Emitter, *, ceil: bool) -> ir.Value:
    """δ scattered to the first maximum of each window, at full resolution."""
    geometry = {
        "kernel_shape": list(pool.kernel), "strides": list(pool.strides), "dilations": list(pool.dilations),
        "pads": list(pool.pads), "ceil_mode": int(ceil),
    }  # fmt: skip
    indices = emit.emit("MaxPool", [seen], 2, geometry)[1]
    shape, flat = emit("Shape", seen), emit.integers(-1)
    size = emit("ReduceProd", shape, emit.integers(0), keepdims=1)
    zeros = emit("Expand", emit.constant(0, np.float32), size)
    at, what = emit("Reshape", indices, flat), emit("Reshape", delta, flat)
    return emit("Reshape", emit("ScatterElements", zeros, at, what, axis=0, reduction="add"), shape)


def _leading(value: ir.Value, emit: Emitter) -> ir.Value:
    return emit("Shape", value, start=0, end=2)


def _flat(value: ir.Value, emit: Emitter) -> ir.Value:
    return emit("Reshape", _single(value, emit), emit.integers(0, -1))


def _single(value: ir.Value, emit: Emitter) -> ir.Value:
    """Return a value in single precision."""
    return value if dtype_of(value) == np.float32 else emit("Cast", value, to=ir.DataType.FLOAT)


def _activation(reduction: Reduction) -> str:
    assert reduction.activation is not None, reduction  # noqa: S101 - the layer rules always name it for these kernels
    return reduction.activation


def _dense_sizes(reduction: Reduction, parameter: Parameter) -> tuple[int, int]:
    """Return the sizes of input and output of a dense layer's weight, however it stands."""
    first, second = parameter.shape
    return (second, first) if (reduction.attributes or {}).get("outputs_first") else (first, second)


def _shape(value: ir.Value, named: ir.Value) -> tuple[int | None, ...]:
    shape = extents(value) or extents(named)
    if shape is None:
        raise UnsupportedOpError(
            f"value {named.name!r} has unknown rank, so its statistics cannot be put into the graph"
        )
    return shape


def _spatial(value: ir.Value) -> tuple[int, ...]:
    """Return the fixed sizes behind batch and channels."""
    sizes = _shape(value, value)[2:]
    if None in sizes:
        raise UnsupportedOpError(
            f"value {value.name!r} has no fixed size, which unpooling needs inside the graph: export the model with one"
        )
    return tuple(int(size or 0) for size in sizes)
