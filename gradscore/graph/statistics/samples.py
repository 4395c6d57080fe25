"""Large gradients, one sample after the other: moments in memory that a batch of any size does not widen.

A Scan over the samples, whose body makes one sample's gradient and reduces it at once, while it is in the caches. Means come
out of the factors' own sums, so that the product can be centred as it is made, by one position more: C = Σ_t δ_t a_tᵀ − mean.
"""

from collections.abc import Mapping
from functools import cache
from math import prod

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.arithmetic import Number
from gradscore.graph.nodes.emitter import STATISTICS, Emitter
from gradscore.graph.statistics.gradients import Contraction, Large, Values
from gradscore.graph.statistics.moments import SMALLEST_SCALE, Key, Moments, MomentTable, kinds_for

_TOGETHER = 64  # so many numbers are summed in single precision before double takes over


def add_contraction(
    key: Key, gradient: Contraction, table: MomentTable, wanted: frozenset[str], emit: Emitter
) -> None:  # fmt: skip
    """Enter the moments of sums over positions whose factors stand for the whole batch, but they themselves never do."""
    kinds, centred = kinds_for(wanted), _Centred(gradient, emit)
    sources = {"rows": centred.rows(), "columns": centred.columns(), "scale": centred.scale(), "mean": centred.mean()}
    body, slices, inner = _body(f"{key[0]}/sample", {name: source.value for name, source in sources.items()})
    sample = {name: Number(value, inner) for name, value in slices.items()}
    moments = _moments(gradient, sample["rows"], sample["columns"], sample["scale"], sample["mean"], kinds)
    table.add_row(key, _scanned(body, moments, kinds, [source.value for source in sources.values()], emit), kinds)


def add_large(
    key: Key, large: Large, values: Values, table: MomentTable, wanted: frozenset[str], emit: Emitter
) -> None:  # fmt: skip
    """Enter the moments of a gradient of which not even the factors can stand for the whole batch."""
    kinds, sources = kinds_for(wanted), {name: values[name] for name in large.reduction.values}
    body, slices, inner = _body(f"{key[0]}/sample", sources)
    gradient = large.rule.gradient(large.reduction, large.parameter, slices, inner)
    assert isinstance(gradient, Contraction), large  # noqa: S101 - no other gradient is large in the making
    centred = _Centred(gradient, inner)
    moments = _moments(gradient, centred.rows(), centred.columns(), centred.scale(), centred.mean(), kinds)
    table.add_row(key, _scanned(body, moments, kinds, list(sources.values()), emit), kinds)


def _body(about: str, sources: Mapping[str, ir.Value]) -> tuple[ir.Graph, dict[str, ir.Value], Emitter]:
    """Return a graph of one sample's slices, the slices as batches of one, and what writes into the graph."""
    inputs = [
        ir.Value(
            name=f"statistics/{about}/{index}",
            type=value.type or ir.TensorType(ir.DataType.FLOAT),
            shape=None if value.shape is None else ir.Shape(value.shape[1:]),
        )
        for index, value in enumerate(sources.values())
    ]
    body = ir.Graph(inputs, [], nodes=[], name=about)
    emit, slices = Emitter(body, STATISTICS, about=about), {}
    for (name, source), value in zip(sources.items(), inputs, strict=True):
        batch = emit("Unsqueeze", value, emit.integers(0))
        batch.type, batch.shape = source.type, None if source.shape is None else ir.Shape([1, *source.shape[1:]])
        slices[name] = batch
    return body, slices, emit


def _scanned(
    body: ir.Graph, moments: Moments, kinds: tuple[str, ...], sources: list[ir.Value], emit: Emitter
) -> Number:  # fmt: skip
    """Close the body with a sample's moments, and run it over the batch: [B, kinds]."""
    whole = moments.joined(kinds)
    result = whole.op("Squeeze", whole.emit.integers(0)).value
    result.type, result.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([len(kinds)])
    body.outputs.append(result)
    return Number(emit("Scan", *sources, body=body, num_scan_inputs=len(sources)), emit)


class _Centred:
    """The factors of a contraction such that their product is its gradient in units of a scale, less its mean.

    Each is emitted when it is first read: `scale` and `mean` (in units of it) [B, 1], `rows` and `columns` with one position
    more.
    """

    def __init__(self, gradient: Contraction, emit: Emitter) -> None:
        self._gradient, self._emit = gradient, emit
        self._rows, self._columns = Number(gradient.rows, emit), Number(gradient.columns, emit)
        self._rank, self._features = 2 + len(gradient.lines), -3 - gradient.positions
        self.scale, self.mean, self._scaled = cache(self._scale), cache(self._mean), cache(self._scaled_rows)

    def rows(self) -> Number:
        """δ in units of the scale, and −mean at the last position."""
        lines, is_last = self._gradient.lines, self._gradient.positions == -1
        minus_one = np.full((1, *lines, 1) if is_last else (1, 1, *lines), -1)
        spread = self._beside(self.mean()).op("Mul", self._emit.constant(minus_one, np.float32))
        return self._scaled().op("Concat", spread, axis=self._gradient.positions)

    def columns(self) -> Number:
        """Return a, and 1 at the last position."""
        pads = [0] * (2 * self._rank)
        pads[self._gradient.positions] = 1
        return self._columns.op("Pad", self._emit.integers(*pads), 1.0)

    def _scale(self) -> Number:
        """Return the largest over t of max |δ_t| · max |a_t|, which the largest |g| is near."""
        first, second = (
            side.op("Abs").op("ReduceMax", self._emit.integers(self._features), keepdims=0)
            for side in (self._rows, self._columns)
        )
        return self._of_samples(first * second, "ReduceMax").op("Max", SMALLEST_SCALE)

    def _scaled_rows(self) -> Number:
        return self._rows / self._beside(self.scale())

    def _mean(self) -> Number:
        """Return the mean out of the factors' sums."""
        deltas = self._summed(self._scaled(), self._gradient.lines[-1])
        mean = self._of_samples(deltas * self._summed(self._columns, self._gradient.width), "ReduceSum")
        return Number((mean * (1 / self._gradient.count)).op("Cast", to=ir.DataType.FLOAT).value, self._emit)

    def _summed(self, side: Number, count: int) -> Number:
        """Sum over the features, [B, *groups, T], in double precision but for the first few: means cancel, often to nothing."""
        few = max(size for size in range(1, _TOGETHER + 1) if count % size == 0)
        positions = [-1] if self._gradient.positions == -1 else []
        shape = [*[0] * (self._rank - 1 - len(positions)), count // few, few, *positions]
        some = side.op("Reshape", self._emit.integers(*shape)).total(self._features)
        double = Number(some.op("Cast", to=ir.DataType.DOUBLE).value, self._emit, np.float64)
        return double.total(self._features)

    def _beside(self, value: Number) -> Number:
        """Give [B, 1] the rank of the factors."""
        return value.op("Reshape", self._emit.integers(-1, *[1] * (self._rank - 1)))

    def _of_samples(self, values: Number, op_type: str) -> Number:
        """Reduce [B, *groups, T] to [B, 1]."""
        found = values.op(op_type, self._emit.integers(*range(1, self._rank - 1)), keepdims=0)
        return found.op("Reshape", self._emit.integers(-1, 1))


def _moments(
    gradient: Contraction, rows: Number, columns: Number, scale: Number, mean: Number, kinds: tuple[str, ...]
) -> Moments:  # fmt: skip
    """Return the moments of one sample, each kind [1, 1], out of its centred factors.

    With ν = mean / scale, and C = G / scale − ν: Σ |g| / scale = Σ |C + ν| = 2 Σ max(C, −ν) + n ν, since Σ C = 0.
    """
    emit, count, width = rows.emit, float(gradient.count), gradient.width
    lines, cell = emit.integers(prod(gradient.lines), width), emit.integers(1, 1)
    has_square = "m3" in kinds  # which takes half the time of a product to sum, where it stands anyway
    centred = cache(lambda: Number(gradient.product(rows.value, columns.value, emit), emit).op("Reshape", lines))
    square = cache(lambda: centred() * centred())
    poison = cache(lambda: mean * 0)  # a gradient with NaN or infinity in it has no moments at all, as in the kernels

    def over(values: Number, op_type: str) -> Number:
        """Reduce [lines, K], each line by itself first: one sum of so many numbers would round too much."""
        return values.op(op_type, emit.integers(1), keepdims=0).op(op_type, keepdims=0).op("Reshape", cell)

    def dot(one: Number, other: Number) -> Number:
        """Average the products of [lines, K] and [lines, K], without a pass that writes them."""
        lying = emit.integers(0, 1, width)
        standing = other.op("Reshape", lying).op("Transpose", perm=[0, 2, 1])  # no copy: a part of the product
        sums = one.op("Reshape", lying).op("MatMul", standing)
        return sums.op("ReduceSum", keepdims=0).op("Reshape", cell) * (1 / count)

    return Moments(
        l1=lambda: (over(centred().op("Max", -mean), "ReduceSum") * 2.0 + mean * count) * scale,
        low=lambda: (over(centred(), "ReduceMin") + mean) * scale + poison(),
        high=lambda: (over(centred(), "ReduceMax") + mean) * scale + poison(),
        mean=lambda: mean * scale,
        scale=lambda: scale,
        m2=lambda: over(square(), "ReduceSum") * (1 / count) if has_square else dot(centred(), centred()),
        m3=lambda: dot(centred(), square()),
        m4=lambda: dot(square(), square()),
    )
