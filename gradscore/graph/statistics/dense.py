"""Moments of outer products small enough to stand in the graph: sums from the factors, central moments from the centred product.

With G = δ aᵀ: Σ G = Σ δ · Σ a and Σ |G| = Σ |δ| · Σ |a|, of a few numbers each, so that G itself is made only once its mean is
known, and in units of Σ |G|, already centred. Products of one shape share their nodes: a [B, V, 1, K] and δ [B, V, M, 1].
"""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.arithmetic import Number
from gradscore.graph.nodes.emitter import Emitter
from gradscore.graph.statistics.gradients import Dense, Explicit
from gradscore.graph.statistics.moments import SMALLEST_SCALE, Key, Moments, MomentTable


def add_dense(gradients: Mapping[Key, tuple[Dense, frozenset[str]]], table: MomentTable, emit: Emitter) -> None:
    """Enter the moments of small outer products, those of like shape and like use together."""
    bundles: dict[tuple[int, int, frozenset[str]], list[Key]] = {}
    for key, (gradient, wanted) in gradients.items():
        bundles.setdefault((gradient.first.count, gradient.second.count, wanted), []).append(key)
    for (width, lines, wanted), keys in bundles.items():
        first = _stacked([gradients[key][0].first for key in keys], (1, width), emit)
        second = _stacked([gradients[key][0].second for key in keys], (lines, 1), emit)
        count = width * lines
        table.add_stacked(dict.fromkeys(keys, count), _moments(first, second, count), wanted)


def _stacked(factors: Sequence[Explicit], shape: tuple[int, int], emit: Emitter) -> Number:
    """Return [B, V, *shape] of V factors."""
    values = [factor.value for factor in factors]
    joined = emit("Concat", *values, axis=1) if len(values) > 1 else values[0]
    return Number(emit("Reshape", joined, emit.integers(-1, len(values), *shape)), emit)


def _moments(first: Number, second: Number, count: int) -> Moments:
    """Return the moments of products, [B, V, 1, 1] each; the central ones are sums yet."""
    emit = first.emit
    whole, row = emit.integers(2, 3), emit.integers(0, 0, 1, count)

    def total(values: Number) -> Number:
        return values.op("ReduceSum", whole, keepdims=1)

    def exact_total(values: Number) -> Number:
        # Means cancel, often to nothing.
        return total(Number(values.op("Cast", to=ir.DataType.DOUBLE).value, emit, np.float64))

    def dot(one: Number, other: Number) -> Number:
        return one.op("MatMul", other.op("Transpose", perm=[0, 1, 3, 2]))

    def extremum(op_type: str) -> Number:
        return (centred().op(op_type, emit.integers(3), keepdims=1) + relative_mean()) * scale()

    def averaged() -> Number:
        mean = exact_total(first) * exact_total(second) * (1 / count)
        return Number(mean.op("Cast", to=ir.DataType.FLOAT).value, emit)

    mean = cache(averaged)
    l1 = cache(lambda: total(first.op("Abs")) * total(second.op("Abs")))
    scale = cache(lambda: l1().op("Max", SMALLEST_SCALE))
    relative_mean = cache(lambda: mean() / scale())
    centred = cache(lambda: ((second / scale()) * first - relative_mean()).op("Reshape", row))
    square = cache(lambda: centred() * centred())
    return Moments(
        l1=l1,
        low=lambda: extremum("ReduceMin"),
        high=lambda: extremum("ReduceMax"),
        mean=mean,
        scale=scale,
        m2=lambda: total(square()),
        m3=lambda: dot(centred(), square()),
        m4=lambda: dot(square(), square()),
    )
