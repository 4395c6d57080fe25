"""Moments of gradients in standard ONNX, in two passes: means first, central moments after, in units of the largest |g|.

Many gradients of like size are laid side by side in one tensor, so that a network of a hundred layers takes a dozen nodes
for each statistic, not a dozen for each layer.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gradscore.graph.arithmetic import Number
from gradscore.graph.emitter import Emitter
from gradscore.graph.statistic_gradients import Explicit, Sparse

Key = tuple[int, str]  # a reduction's place in the layer table, and which part of it
SMALLEST_SCALE = 1e-37  # keeps 0 / 0 away where a gradient is zero throughout
_JOINED = 4096  # longer gradients are not copied together: each keeps the cores busy alone
_EXACT = 1024  # means of so many numbers are summed in double precision
_ALIKE = 2  # a gradient may be padded to so many times its length
_ALWAYS_ALIKE = 64
KINDS = ("l1", "low", "high", "mean", "scale", "m2", "m3", "m4")
_READ_FOR: Mapping[str, tuple[str, ...]] = {
    "l1": ("l1",),
    "l2": ("mean", "scale", "m2"),
    "min": ("mean", "low", "high"),
    "max": ("mean", "low", "high"),
    "mean": ("mean",),
    "std": ("mean", "scale", "m2"),
    "skewness": ("mean", "scale", "m2", "m3"),
    "kurtosis": ("mean", "scale", "m2", "m3", "m4"),
}  # what a statistic is made of, be it of one gradient, of an outer product, or of several merged


def kinds_for(wanted: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds of moments that statistics are made of."""
    return tuple(dict.fromkeys(kind for statistic in sorted(wanted) for kind in _READ_FOR[statistic]))


class Moments:
    """Moments of V gradients, each kind [B, V] and emitted when it is first read.

    `l1`, `low`, `high`, `mean`, `scale` (the largest |g|); `m2`, `m3`, `m4` are central moments over powers of `scale`.
    """

    def __init__(self, **kinds: Callable[[], Number]) -> None:
        self._kinds = {kind: cache(emitted) for kind, emitted in kinds.items()}

    def __getattr__(self, kind: str) -> Number:
        return self._kinds[kind]()

    def joined(self, kinds: Sequence[str]) -> Number:
        """Return some kinds side by side, [B, kinds · V]."""
        first, *others = (self._kinds[kind]() for kind in kinds)
        return first.op("Concat", *others, axis=1) if others else first


@dataclass(frozen=True)
class _Block:
    """Moments that are computed one after another: [B, kinds · V], so that no gradient stays in memory for long."""

    whole: Number
    kinds: tuple[str, ...]
    columns: int


class MomentTable:
    """Moments of many gradients, found by key, whatever block of the graph they were computed in."""

    def __init__(self, emit: Emitter) -> None:
        self._emit = emit
        self._blocks: list[_Block] = []
        self._place: dict[Key, tuple[int, int]] = {}

    def add(self, keys: Sequence[Key], moments: Moments, wanted: Iterable[str]) -> None:
        """Enter the moments of some gradients, one column each, as far as the wanted statistics read them."""
        kinds = kinds_for(wanted)
        self.add_block(keys, moments.joined(kinds), kinds)

    def add_block(self, keys: Sequence[Key], whole: Number, kinds: tuple[str, ...]) -> None:
        """Enter moments that stand side by side already, [B, kinds · V]."""
        self._place.update({key: (len(self._blocks), column) for column, key in enumerate(keys)})
        self._blocks.append(_Block(whole, kinds, len(keys)))

    def take(self, keys: Sequence[Key], shape: Sequence[int]) -> Moments:
        """Return the moments of some gradients, each kind [B, *shape]; blocks that hold none of them stay unread."""
        places = [self._place[key] for key in keys]
        wanted = sorted({block for block, _ in places})
        blocks = [self._blocks[block] for block in wanted]
        widths = [len(block.kinds) * block.columns for block in blocks]
        starts = dict(zip(wanted, np.cumsum([0, *widths[:-1]]), strict=True))

        @cache
        def joined() -> Number:
            first, *others = (block.whole for block in blocks)
            return first.op("Concat", *others, axis=1) if others else first

        def find(kind: str) -> Number:
            index = [
                starts[block] + self._blocks[block].kinds.index(kind) * self._blocks[block].columns + column
                for block, column in places
            ]
            at = self._emit.constant(np.array(index).reshape(tuple(shape)), np.int64)
            return joined().op("Gather", at, axis=1)

        return Moments(**{kind: partial(find, kind) for kind in KINDS})


def add_explicit(gradients: Mapping[Key, tuple[Explicit, frozenset[str]]], table: MomentTable, emit: Emitter) -> None:
    """Enter the moments of gradients that stand in the graph; those of which other statistics are wanted stay apart."""
    for bundle in _bundles({key: (gradient.count, wanted) for key, (gradient, wanted) in gradients.items()}):
        together = [gradients[key][0] for key in bundle]
        values, mask = _side_by_side(together, emit)
        counts = np.array([gradient.count for gradient in together])
        moments = _moments(Number(values, emit), _Average(mask, counts, emit), counts)
        table.add(bundle, moments, gradients[bundle[0]][1])


def _bundles(sizes: Mapping[Key, tuple[int, frozenset[str]]]) -> list[list[Key]]:
    """Group gradients of like size and like use."""
    bundles: list[list[Key]] = []
    for key in sorted(sizes, key=lambda key: (sorted(sizes[key][1]), sizes[key][0])):
        count, wanted = sizes[key]
        first_count, first_wanted = sizes[bundles[-1][0]] if bundles else (0, frozenset())
        fits = count <= max(_ALWAYS_ALIKE, _ALIKE * first_count) and count <= _JOINED
        if bundles and wanted == first_wanted and fits:
            bundles[-1].append(key)
        else:
            bundles.append([key])
    return bundles


def _side_by_side(gradients: Sequence[Explicit], emit: Emitter) -> tuple[ir.Value, NDArray[np.bool_] | None]:
    """Return [B, V, n], and which of its numbers count where shorter gradients were filled up with repetitions."""
    counts = [gradient.count for gradient in gradients]
    longest, number = max(counts), len(gradients)
    if number == 1:
        return emit("Unsqueeze", gradients[0].value, emit.integers(1)), None
    joined = emit("Concat", *(gradient.value for gradient in gradients), axis=1)
    if min(counts) == longest:
        return emit("Reshape", joined, emit.integers(0, number, longest)), None
    starts = np.cumsum([0, *counts[:-1]])
    index = [start + np.arange(longest) % count for start, count in zip(starts, counts, strict=True)]
    mask = np.arange(longest) < np.array(counts)[:, None]
    return emit("Gather", joined, emit.constant(np.stack(index), np.int64), axis=1), mask


class _Average:
    """The mean along the last axis of [B, V, n], over the numbers that count."""

    def __init__(self, mask: NDArray[np.bool_] | None, counts: NDArray[np.int64], emit: Emitter) -> None:
        self._mask = None if mask is None else Number(emit.constant(mask, np.float32), emit)
        self._counts = counts
        self._last = emit.integers(2)

    def masked(self, values: Number) -> Number:
        """Set what does not count to 0."""
        return values if self._mask is None else values * self._mask

    def __call__(self, values: Number, *, keepdims: int = 0) -> Number:
        """Average [B, V, n] that is masked to [B, V], or [B, V, 1]."""
        if self._mask is None:
            return values.op("ReduceMean", self._last, keepdims=keepdims)
        share = 1 / (self._counts[:, None] if keepdims else self._counts)
        return values.total(2, keepdims=keepdims) * Number(values.emit.constant(share, values.dtype), values.emit)

    def exact(self, values: Number) -> Number:
        """Average to [B, V, 1], summed in double precision where that is cheap: means cancel, often to nothing."""
        if self._counts.max() > _EXACT:
            return self(values, keepdims=1)
        double = Number(values.op("Cast", to=ir.DataType.DOUBLE).value, values.emit, np.float64)
        return Number(self(double, keepdims=1).op("Cast", to=ir.DataType.FLOAT).value, values.emit)


def _moments(values: Number, average: _Average, counts: NDArray[np.int64]) -> Moments:
    low, high = (cache(partial(find, 2, keepdims=1)) for find in (values.smallest, values.largest))
    mean = cache(lambda: average.exact(average.masked(values)))
    scale = cache(lambda: high().op("Max", -low(), SMALLEST_SCALE))
    centred = cache(lambda: average.masked((values - mean()) / scale()))
    square = cache(lambda: centred() * centred())
    flat = cache(lambda: mean().op("Squeeze", last))
    poison = cache(lambda: flat() * 0)  # a gradient with NaN or infinity in it has no moments at all, as in the kernels
    last, sizes = values.emit.integers(2), Number(values.emit.constant(counts, np.float32), values.emit)
    return Moments(
        l1=lambda: average(average.masked(values.op("Abs"))) * sizes + poison(),
        low=lambda: low().op("Squeeze", last) + poison(),
        high=lambda: high().op("Squeeze", last) + poison(),
        mean=lambda: flat() + poison(),
        scale=lambda: scale().op("Squeeze", last),
        m2=lambda: average(square()),
        m3=lambda: average(square() * centred()),
        m4=lambda: average(square() * square()),
    )


def add_products(pairs: Mapping[Key, tuple[Key, Key]], table: MomentTable, wanted: frozenset[str]) -> None:
    """Enter the moments of outer products from those of their factors.

    The closed form of DESIGN.md, §2, in units of the factors' scales: with means b, c and central moments u, w.
    """
    x, y = (table.take([pair[side] for pair in pairs.values()], [len(pairs)]) for side in (0, 1))
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
