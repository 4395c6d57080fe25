"""Moments of gradients in standard ONNX, in two passes: means first, central moments after, in units of the largest |g|.

Many gradients of like size are laid side by side in one tensor, so that a network of a hundred layers takes a dozen nodes
for each statistic, not a dozen for each layer.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import onnx_ir as ir
from numpy.typing import DTypeLike

from gradscore.graph.nodes.arithmetic import Number
from gradscore.graph.nodes.emitter import Emitter
from gradscore.graph.statistics.gradients import Sparse

Key = tuple[int, str]  # a reduction's place in the layer table, and which part of it
SMALLEST_SCALE = 1e-37  # keeps 0 / 0 away where a gradient is zero throughout
_CENTRAL = ("m2", "m3", "m4")
_READ_FOR: Mapping[str, tuple[str, ...]] = {
    "l1": ("l1",),
    "l2": ("mean", "scale", "m2"),
    "min": ("mean", "low"),
    "max": ("mean", "high"),
    "mean": ("mean",),
    "std": ("mean", "scale", "m2"),
    "skewness": ("mean", "scale", "m2", "m3"),
    "kurtosis": ("mean", "scale", "m2", "m3", "m4"),
}  # what a statistic is made of, be it of one gradient, of an outer product, or of several merged


def kinds_for(wanted: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds of moments that statistics are made of."""
    return tuple(dict.fromkeys(kind for statistic in sorted(wanted) for kind in _READ_FOR[statistic]))


def wanted_of_factors(wanted: Iterable[str]) -> frozenset[str]:
    """Return the statistics wanted of an outer product's factors: either extremum may come from both of each."""
    extrema = frozenset(("min", "max"))
    return frozenset(wanted) | extrema if extrema & frozenset(wanted) else frozenset(wanted)


class Moments:
    """Moments of V gradients, each kind [B, 1, V] (while they are sums, [B, V, …]) and emitted when it is first read.

    `l1`, `low`, `high`, `mean`, `scale` (of the largest |g|'s magnitude); `m2`, `m3`, `m4` are central moments over powers of
    `scale`.
    """

    def __init__(self, **kinds: Callable[[], Number]) -> None:
        self._kinds = {kind: cache(emitted) for kind, emitted in kinds.items()}

    @classmethod
    def split(cls, whole: Number, kinds: Sequence[str]) -> "Moments":
        """Return kinds that stand one behind the other, [B, kinds, …]."""
        sizes = whole.emit.integers(*[1] * len(kinds))
        parts = whole.emit.emit("Split", (whole.value, sizes), len(kinds), {"axis": 1})
        return cls(**{
            kind: partial(Number, part, whole.emit, whole.dtype) for kind, part in zip(kinds, parts, strict=True)
        })  # fmt: skip

    def __getattr__(self, kind: str) -> Number:
        return self._kinds[kind]()

    def joined(self, kinds: Sequence[str], *, axis: int = 1) -> Number:
        """Return some kinds side by side."""
        first, *others = (self._kinds[kind]() for kind in kinds)
        return first.op("Concat", *others, axis=axis) if others else first


@dataclass(frozen=True)
class _Block:
    """Moments that are computed one after another, so that no gradient stays in memory for long: [B, width]."""

    whole: Number
    column: Mapping[tuple[Key, str], int]

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.column)


class MomentTable:
    """Moments of many gradients, found by key, whatever block of the graph they were computed in."""

    def __init__(self, emit: Emitter) -> None:
        self.emit = emit
        self._blocks: list[_Block] = []
        self._place: dict[Key, int] = {}

    def add(self, keys: Sequence[Key], moments: Moments, wanted: Iterable[str]) -> None:
        """Enter the moments of some gradients, as far as the wanted statistics read them."""
        kinds = kinds_for(wanted)
        columns = [(key, kind) for kind in kinds for key in keys]
        self._enter(keys, moments.joined(kinds).op("Reshape", self.emit.integers(0, len(columns))), columns)

    def add_stacked(self, counts: Mapping[Key, int], moments: Moments, wanted: Iterable[str]) -> None:
        """Enter moments of one number a gradient, [B, V, …], the central ones sums over so many numbers yet.

        A gradient with NaN or infinity in it has no moments at all, as in the kernels.
        """
        kinds = kinds_for(wanted)
        columns = [(key, kind) for key in counts for kind in kinds]
        poisoned = moments.joined(kinds, axis=2) + moments.mean * 0
        whole = poisoned.op("Reshape", self.emit.integers(0, len(columns)))
        # One product for all: a runtime that finds a number of its own behind a matrix product takes a slower product.
        share = [1 / counts[key] if kind in _CENTRAL else 1.0 for key, kind in columns]
        self._enter(list(counts), whole * Number(self.emit.constant(share, np.float32), self.emit), columns)

    def add_row(self, key: Key, whole: Number, kinds: Sequence[str]) -> None:
        """Enter one gradient's moments that stand side by side already, [B, kinds]."""
        self._enter([key], whole, [(key, kind) for kind in kinds])

    def _enter(self, keys: Sequence[Key], whole: Number, columns: Sequence[tuple[Key, str]]) -> None:
        self._place.update(dict.fromkeys(keys, len(self._blocks)))
        self._blocks.append(_Block(whole, {name: column for column, name in enumerate(columns)}))

    def take(
        self, keys: Sequence[Key], shape: Sequence[int], kinds: Sequence[str], dtype: DTypeLike = np.float32
    ) -> Moments:  # fmt: skip
        """Return kinds of moments of some gradients, [B, 1, *shape] each; blocks that hold none of them stay unread."""
        wanted = sorted({self._place[key] for key in keys})
        blocks = [self._blocks[block] for block in wanted]
        starts = dict(zip(wanted, np.cumsum([0, *(block.width for block in blocks[:-1])]), strict=True))
        first, *others = (block.whole for block in blocks)
        joined = first.op("Concat", *others, axis=1) if others else first
        if dtype != np.float32:
            joined = Number(joined.op("Cast", to=ir.DataType.from_numpy(np.dtype(dtype))).value, self.emit, dtype)
        index = [
            [starts[self._place[key]] + self._blocks[self._place[key]].column[key, kind] for key in keys]
            for kind in kinds
        ]
        at = self.emit.constant(np.array(index).reshape((len(kinds), *shape)), np.int64)
        return Moments.split(joined.op("Gather", at, axis=1), kinds)


def add_products(pairs: Mapping[Key, tuple[Key, Key]], table: MomentTable, wanted: frozenset[str]) -> None:
    """Enter the moments of outer products from those of their factors.

    The closed form of DESIGN.md, §2, in units of the factors' scales: with means b, c and central moments u, w.
    """
    kinds = kinds_for(wanted_of_factors(wanted))
    x, y = (table.take([pair[side] for pair in pairs.values()], [len(pairs)], kinds) for side in (0, 1))
    b, c = cache(lambda: x.mean / x.scale), cache(lambda: y.mean / y.scale)
    bb, cc, bu2 = cache(lambda: b() * b()), cache(lambda: c() * c()), cache(lambda: b() * x.m2)
    corners = cache(lambda: [one * other for one in (x.low, x.high) for other in (y.low, y.high)])
    moments = Moments(
        l1=lambda: x.l1 * y.l1,
        low=lambda: corners()[0].op("Min", *corners()[1:]),
        high=lambda: corners()[0].op("Max", *corners()[1:]),
        mean=lambda: x.mean * y.mean,
        scale=lambda: (x.scale * y.scale).op("Max", SMALLEST_SCALE),
        m2=lambda: y.m2 * (bb() + x.m2) + cc() * x.m2,
        m3=lambda: y.m3 * (b() * bb() + 3 * bu2() + x.m3) + 3 * (c() * y.m2 * (2 * bu2() + x.m3)) + c() * cc() * x.m3,
        m4=lambda: (
            y.m4 * (bb() * bb() + 6 * (b() * bu2()) + 4 * (b() * x.m3) + x.m4)
            + 4 * (c() * y.m3 * (3 * (b() * (bu2() + x.m3)) + x.m4))
            + 6 * (cc() * y.m2 * (b() * (bu2() + 2 * x.m3) + x.m4))
            + cc() * cc() * x.m4
        ),
    )
    table.add(list(pairs), moments, wanted)


def add_sparse(key: Key, gradient: Sparse, table: MomentTable, wanted: frozenset[str], emit: Emitter) -> None:
    """Enter the moments of a table of which only some rows are not zero.

    Σ over the table of (g − mean)^k = Σ over kept rows + (number of zeros) · (−mean)^k.
    """
    rows, kept = Number(gradient.rows, emit), Number(gradient.kept, emit)
    standing = rows * kept
    touched = kept.total(1) * gradient.width  # [B, 1] numbers in kept rows
    has_zeros = touched.op("Less", float(gradient.count))
    share = 1 / gradient.count

    def over(values: Number) -> Number:
        return values.op("ReduceSum", emit.integers(1, 2), keepdims=0).op("Unsqueeze", emit.integers(1)) * share

    def extremum(op_type: str, pair: str) -> Number:
        # A row that stands twice is no matter to extrema, so that all rows may be looked at.
        found = rows.op(op_type, emit.integers(1, 2), keepdims=0).op("Unsqueeze", emit.integers(1))
        return Number(emit("Where", has_zeros.value, found.op(pair, 0.0).value, found.value), emit) + poison

    mean = over(standing)
    poison = mean * 0
    low, high = extremum("ReduceMin", "Min"), extremum("ReduceMax", "Max")
    scale = high.op("Max", -low, SMALLEST_SCALE)
    column = scale.op("Unsqueeze", emit.integers(2))
    centred = (standing - mean.op("Unsqueeze", emit.integers(2))) / column * kept
    square, centre = centred * centred, mean / scale
    zeros = (touched * -share) + 1.0
    centre_square = centre * centre * zeros
    moments = Moments(
        l1=lambda: over(standing.op("Abs")) * float(gradient.count) + poison,
        low=lambda: low,
        high=lambda: high,
        mean=lambda: mean + poison,
        scale=lambda: scale,
        m2=lambda: over(square) + centre_square,
        m3=lambda: over(square * centred) - centre * centre_square,
        m4=lambda: over(square * square) + centre * centre * centre_square,
    )
    table.add([key], moments, wanted)
