"""Moments of gradients that stand in the graph: those of like size side by side in one tensor [B, V, R, 1, W] of V gradients.

Each gradient lies in R runs of W numbers, since a sum that rounds at every number must be short.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gradscore.graph.nodes.arithmetic import Number
from gradscore.graph.nodes.emitter import Emitter
from gradscore.graph.statistics.gradients import Explicit
from gradscore.graph.statistics.moments import SMALLEST_SCALE, Key, Moments, MomentTable, kinds_for

_JOINED = 4096  # longer gradients are not copied together: each keeps the cores busy alone
_EXACT = 1024  # means of so many numbers are summed in double precision
_ALIKE = 2  # a short gradient may be padded to so many times its length
_ALWAYS_ALIKE = 64
_PADDED = 512  # longer ones cost more to pad than to treat alone
_RUN = 1024  # the longest run of numbers that is summed at once, where a gradient's length allows
_SHORTEST_RUN = 16
_Lazy = Callable[[], Number]


def add_explicit(gradients: Mapping[Key, tuple[Explicit, frozenset[str]]], table: MomentTable, emit: Emitter) -> None:
    """Enter the moments of gradients that stand in the graph; those of which other statistics are wanted stay apart."""
    for bundle in _bundles({key: (gradient.count, wanted) for key, (gradient, wanted) in gradients.items()}):
        together = [gradients[key][0] for key in bundle]
        values, mask = _side_by_side(together, emit)
        counts = np.array([gradient.count for gradient in together])
        wanted = gradients[bundle[0]][1]
        moments = _moments(Number(values, emit), _Average(mask, counts, emit), kinds_for(wanted))
        table.add_stacked(dict(zip(bundle, counts.tolist(), strict=True)), moments, wanted)


def _bundles(sizes: Mapping[Key, tuple[int, frozenset[str]]]) -> list[list[Key]]:
    """Group gradients of like size and like use."""
    bundles: list[list[Key]] = []
    for key in sorted(sizes, key=lambda key: (sorted(sizes[key][1]), sizes[key][0])):
        count, wanted = sizes[key]
        first_count, first_wanted = sizes[bundles[-1][0]] if bundles else (0, frozenset())
        fits = count == first_count <= _JOINED or count <= min(_PADDED, max(_ALWAYS_ALIKE, _ALIKE * first_count))
        if bundles and wanted == first_wanted and fits:
            bundles[-1].append(key)
        else:
            bundles.append([key])
    return bundles


def _side_by_side(gradients: Sequence[Explicit], emit: Emitter) -> tuple[ir.Value, NDArray[np.bool_] | None]:
    """Return [B, V, R, 1, W], and which of its numbers count where shorter gradients were filled up with repetitions."""
    counts = [gradient.count for gradient in gradients]
    longest, number = max(counts), len(gradients)
    pieces = [piece for gradient in gradients for piece in (gradient.value, *gradient.beside)]
    joined = emit("Concat", *pieces, axis=1) if len(pieces) > 1 else pieces[0]
    if min(counts) == longest:
        runs = _runs(longest)
        return emit("Reshape", joined, emit.integers(-1, number, runs, 1, longest // runs)), None
    starts = np.cumsum([0, *counts[:-1]])
    index = [start + np.arange(longest) % count for start, count in zip(starts, counts, strict=True)]
    mask = np.arange(longest) < np.array(counts)[:, None]
    return emit("Gather", joined, emit.constant(np.stack(index)[:, None, None], np.int64), axis=1), mask


def _runs(count: int) -> int:
    """Return into how many runs of like length so many numbers are cut; a short gradient's rounding is no matter."""
    fitting = range(-(-count // _RUN), count // _SHORTEST_RUN + 1) if count > _JOINED else ()
    return next((runs for runs in fitting if count % runs == 0), 1)


class _Average:
    """Sums and means of [B, V, R, 1, W] over the numbers that count, to [B, V, 1, 1, 1]."""

    def __init__(self, mask: NDArray[np.bool_] | None, counts: NDArray[np.int64], emit: Emitter) -> None:
        self._mask = None if mask is None else Number(emit.constant(mask[:, None, None], np.float32), emit)
        self._counts = counts
        self._is_cut = mask is None and _runs(int(counts.max())) > 1
        self._runs, self._whole = emit.integers(2, 3), emit.integers(2, 3, 4)

    def masked(self, values: Number) -> Number:
        """Set what does not count to 0."""
        return values if self._mask is None else values * self._mask

    def total(self, values: Number) -> Number:
        """Sum what is masked, run by run."""
        runs = values.total(4, keepdims=1)
        return runs.op("ReduceSum", self._runs, keepdims=1) if self._is_cut else runs

    def product(self, one: Number, other: Number) -> Number:
        """Sum the products of what is masked, run by run; the transposition is a part of the product to runtimes."""
        runs = one.op("MatMul", other.op("Transpose", perm=[0, 1, 2, 4, 3]))
        return runs.op("ReduceSum", self._runs, keepdims=1) if self._is_cut else runs

    def extremum(self, values: Number, op_type: str) -> Number:
        """Return the largest or smallest number."""
        return values.op(op_type, self._whole, keepdims=1)

    def mean(self, values: Number) -> Number:
        """Average what is masked, summed in double precision where that is cheap: means cancel, often to nothing."""
        if self._counts.max() > _EXACT:
            return self._share(self.total(values))
        double = Number(values.op("Cast", to=ir.DataType.DOUBLE).value, values.emit, np.float64)
        sums = double.op("ReduceSum", self._whole, keepdims=1)
        return Number(self._share(sums).op("Cast", to=ir.DataType.FLOAT).value, values.emit)

    def _share(self, sums: Number) -> Number:
        shares = 1 / self._counts[:, None, None, None]
        return sums * Number(sums.emit.constant(shares, sums.dtype), sums.emit, sums.dtype)


def _moments(values: Number, average: _Average, kinds: tuple[str, ...]) -> Moments:
    """Return the moments of [B, V, R, 1, W], [B, V, 1, 1, 1] each; the central ones are sums yet."""
    has_square = "m3" in kinds  # which takes less time to sum than a product, where it stands anyway
    low, high = (cache(partial(average.extremum, values, op_type)) for op_type in ("ReduceMin", "ReduceMax"))
    mean = cache(lambda: average.mean(average.masked(values)))
    scale = cache(lambda: _scale(low, high, mean, kinds))
    centred = cache(lambda: average.masked((values - mean()) * scale().op("Reciprocal")))
    square = cache(lambda: centred() * centred())
    return Moments(
        l1=lambda: average.total(average.masked(values.op("Abs"))),
        low=low,
        high=high,
        mean=mean,
        scale=scale,
        m2=lambda: average.total(square()) if has_square else average.product(centred(), centred()),
        m3=lambda: average.product(centred(), square()),
        m4=lambda: average.product(square(), square()),
    )


def _scale(low: _Lazy, high: _Lazy, mean: _Lazy, kinds: tuple[str, ...]) -> Number:
    """Return a number of the largest |g|'s magnitude, out of what is asked for anyway.

    Of n numbers of mean μ, none is below n μ − (n − 1) max(high, 0), so that |low| ≤ n (|μ| + |high|), and the other way round:
    far from where fourth powers leave single precision's range.
    """
    if ("low" in kinds) == ("high" in kinds):
        return high().op("Max", -low(), SMALLEST_SCALE)
    known = high() if "high" in kinds else -low()
    return known.op("Max", mean().op("Abs"), SMALLEST_SCALE)
