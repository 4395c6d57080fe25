"""Moments of gradients in standard ONNX, in two passes: means first, central moments after, in units of the largest |g|.

Many gradients of like size are laid side by side in one tensor, so that a network of a hundred layers takes a dozen nodes
for each statistic, not a dozen for each layer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

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


@dataclass(frozen=True)
class Moments:
    """Of V gradients, each [B, V]; `m2`, `m3`, `m4` are central moments over powers of `scale`, the largest |g|."""

    l1: Number
    low: Number
    high: Number
    mean: Number
    scale: Number
    m2: Number
    m3: Number
    m4: Number

    @classmethod
    def of_each(cls, find: Callable[[str], Number]) -> "Moments":
        """Gather every kind by its name."""
        return cls(*(find(field.name) for field in fields(cls)))


class MomentTable:
    """Moments of many gradients, found by key, whatever block of the graph they were computed in."""

    def __init__(self, emit: Emitter) -> None:
        self._emit = emit
        self._blocks: list[tuple[Moments, int]] = []
        self._place: dict[Key, tuple[int, int]] = {}

    def add(self, keys: Sequence[Key], moments: Moments) -> None:
        """Enter the moments of some gradients, one column each."""
        self._place.update({key: (len(self._blocks), column) for column, key in enumerate(keys)})
        self._blocks.append((moments, len(keys)))

    def take(self, keys: NDArray[np.object_] | Sequence[Key], shape: Sequence[int]) -> Moments:
        """Return the moments of some gradients, each kind [B, *shape]; blocks that hold none of them stay unread."""
        places = [self._place[key] for key in keys]
        wanted = sorted({block for block, _ in places})
        starts = dict(zip(wanted, np.cumsum([0, *(self._blocks[block][1] for block in wanted)]), strict=False))
        index = np.array([starts[block] + column for block, column in places])
        width = sum(self._blocks[block][1] for block in wanted)
        is_whole = len(shape) == 1 and np.array_equal(index, np.arange(width))
        at = self._emit.constant(index.reshape(tuple(shape)), np.int64)

        def find(kind: str) -> Number:
            blocks: list[Number] = [getattr(self._blocks[block][0], kind) for block in wanted]
            first, *others = blocks
            whole = first.op("Concat", *others, axis=1) if others else first
            return whole if is_whole else whole.op("Gather", at, axis=1)

        return Moments.of_each(find)


def add_explicit(gradients: Mapping[Key, tuple[Explicit, frozenset[str]]], table: MomentTable, emit: Emitter) -> None:
    """Enter the moments of gradients that stand in the graph; those of which other statistics are wanted stay apart."""
    for bundle in _bundles({key: (gradient.count, wanted) for key, (gradient, wanted) in gradients.items()}):
        together = [gradients[key][0] for key in bundle]
        values, mask = _side_by_side(together, emit)
        counts = np.array([gradient.count for gradient in together])
        table.add(bundle, _moments(Number(values, emit), _Average(mask, counts, emit), counts))


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
    low, high = values.smallest(2, keepdims=1), values.largest(2, keepdims=1)
    scale = high.op("Max", -low, SMALLEST_SCALE)
    mean = average.exact(average.masked(values))
    centred = average.masked((values - mean) / scale)
    square = centred * centred
    last = values.emit.integers(2)
    flat_mean = mean.op("Squeeze", last)
    poison = flat_mean * 0  # a gradient with NaN or infinity in it has no moments at all, as in the kernels
    sizes = Number(values.emit.constant(counts, np.float32), values.emit)
    return Moments(
        l1=average(average.masked(values.op("Abs"))) * sizes + poison,
        low=low.op("Squeeze", last) + poison,
        high=high.op("Squeeze", last) + poison,
        mean=flat_mean + poison,
        scale=scale.op("Squeeze", last),
        m2=average(square),
        m3=average(square * centred),
        m4=average(square * square),
    )


def add_products(pairs: Mapping[Key, tuple[Key, Key]], table: MomentTable) -> None:
    """Enter the moments of outer products from those of their factors.

    The closed form of DESIGN.md, §2, in units of the factors' scales: with means b, c and central moments u, w.
    """
    first, second = (table.take([pair[side] for pair in pairs.values()], [len(pairs)]) for side in (0, 1))
    b, c = first.mean / first.scale, second.mean / second.scale
    u2, u3, u4, w2, w3, w4 = first.m2, first.m3, first.m4, second.m2, second.m3, second.m4
    bb, cc, bu2 = b * b, c * c, b * u2
    corners = [one * other for one in (first.low, first.high) for other in (second.low, second.high)]
    moments = Moments(
        l1=first.l1 * second.l1,
        low=corners[0].op("Min", *corners[1:]),
        high=corners[0].op("Max", *corners[1:]),
        mean=first.mean * second.mean,
        scale=(first.scale * second.scale).op("Max", SMALLEST_SCALE),
        m2=w2 * (bb + u2) + cc * u2,
        m3=w3 * (b * bb + 3 * bu2 + u3) + 3 * (c * w2 * (2 * bu2 + u3)) + c * cc * u3,
        m4=(
            w4 * (bb * bb + 6 * (b * bu2) + 4 * (b * u3) + u4)
            + 4 * (c * w3 * (3 * (b * (bu2 + u3)) + u4))
            + 6 * (cc * w2 * (b * (bu2 + 2 * u3) + u4))
            + cc * cc * u4
        ),
    )
    table.add(list(pairs), moments)


def add_sparse(key: Key, gradient: Sparse, table: MomentTable, emit: Emitter) -> None:
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
    table.add(
        [key],
        Moments(
            l1=over(standing.op("Abs")) * float(gradient.count) + poison,
            low=low,
            high=high,
            mean=mean + poison,
            scale=scale,
            m2=over(square) + centre_square,
            m3=over(square * centred) - centre * centre_square,
            m4=over(square * square) + centre * centre * centre_square,
        ),
    )
