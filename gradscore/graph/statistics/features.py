"""From the moments of gradients to the statistics of each layer and of all layers.

These are a few numbers per sample, so double precision is cheap.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from math import sqrt

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.arithmetic import Number
from gradscore.graph.nodes.emitter import Emitter
from gradscore.graph.statistics.moments import Key, Moments, MomentTable, kinds_for
from gradscore.model.metadata import ALL_LAYERS, LAYER_STATISTICS

ROUNDING = 1e-6  # a standard deviation below this share of the mean is single-precision rounding of a constant
Asked = Mapping[str, frozenset[str]]
Parts = Mapping[str, Sequence[tuple[Key, int]]]  # for each layer and "all": its gradients, with their sizes


def features_of(
    asked: Asked, parts: Parts, table: MomentTable, features: Sequence[str], emit: Emitter
) -> ir.Value:  # fmt: skip
    """Return features as double [B, F]; `asked` holds the requested statistics of each layer.

    Layers with the same requested statistics share nodes.
    """
    blocks: list[Number] = []
    column: dict[str, int] = {}
    for statistics in dict.fromkeys(asked.values()):
        names, moments = _moments_of([name for name in asked if asked[name] == statistics], statistics, parts, table)
        roots = emit.constant([sqrt(sum(count for _, count in parts[name])) for name in names], np.float64)
        found = statistics_of(moments, Number(roots, emit, np.float64))
        for statistic in (known for known in LAYER_STATISTICS if known in statistics):
            column |= {f"{name}.{statistic}": len(column) + place for place, name in enumerate(names)}
            blocks.append(found[statistic]())
    whole = blocks[0].op("Concat", *blocks[1:], axis=2) if len(blocks) > 1 else blocks[0]
    order = [column[feature] for feature in features]
    if order != list(range(len(column))):
        whole = whole.op("Gather", emit.integers(*order), axis=2)
    return whole.op("Squeeze", emit.integers(1)).value


def _moments_of(
    names: Sequence[str], statistics: frozenset[str], parts: Parts, table: MomentTable
) -> tuple[list[str], Moments]:
    """Return the layers in the order of their moments, and the moments [B, 1, layers]."""
    kinds = kinds_for(statistics)
    single = [name for name in names if len(parts[name]) == 1]
    several = [name for name in names if len(parts[name]) > 1 and name != ALL_LAYERS]
    every = [name for name in names if len(parts[name]) > 1 and name == ALL_LAYERS]  # alone: it has many more parts
    found = [_merged([parts[name] for name in own], kinds, table) for own in (several, every) if own]
    if single:
        found.insert(0, table.take([parts[name][0][0] for name in single], [len(single)], kinds, np.float64))
    if len(found) == 1:
        return [*single, *several, *every], found[0]
    first, *others = (moments.joined(kinds) for moments in found)
    return [*single, *several, *every], Moments.split(first.op("Concat", *others, axis=2), kinds)


def _merged(parts: Sequence[Sequence[tuple[Key, int]]], kinds: Sequence[str], table: MomentTable) -> Moments:
    """Merge the parts of each layer (Pébay 2008, as `gradscore_kernels.merge`); moments [B, 1, layers]."""
    most = max(map(len, parts))
    padded = [[key for key, _ in own] + [own[0][0]] * (most - len(own)) for own in parts]
    each = table.take([key for own in padded for key in own], [len(parts), most], kinds, np.float64)
    sizes = np.array([[count for _, count in own] + [0] * (most - len(own)) for own in parts], dtype=np.float64)
    counted, share = (
        Number(table.emit.constant(weights, np.float64), table.emit, np.float64)
        for weights in (sizes > 0, sizes / sizes.sum(1, keepdims=True))
    )
    last = table.emit.integers(3)
    mean = cache(lambda: (each.mean * share).total(3, keepdims=1))
    flat = cache(lambda: mean().op("Squeeze", last))
    scale = cache(lambda: each.scale.largest(3, keepdims=1))
    d, ratio = cache(lambda: (each.mean - mean()) / scale()), cache(lambda: each.scale / scale())
    dd, square = cache(lambda: d() * d()), cache(lambda: ratio() * ratio())
    m2, m3 = cache(lambda: each.m2 * square()), cache(lambda: each.m3 * (square() * ratio()))
    return Moments(
        l1=lambda: (each.l1 * counted).total(3),
        low=lambda: each.low.smallest(3) + flat() * 0,
        high=lambda: each.high.largest(3) + flat() * 0,
        mean=flat,
        scale=lambda: scale().op("Squeeze", last),
        m2=lambda: ((m2() + dd()) * share).total(3),
        m3=lambda: ((m3() + d() * (3 * m2() + dd())) * share).total(3),
        m4=lambda: ((each.m4 * (square() * square()) + d() * (4 * m3() + d() * (6 * m2() + dd()))) * share).total(3),
    )


def statistics_of(moments: Moments, roots: Number) -> dict[str, Callable[[], Number]]:
    """Return the formula of each statistic, [B, 1, layers]; skewness and kurtosis of a constant are 0.

    `roots` are the square roots of the numbers of weights.
    """
    emit = roots.emit
    deviation = cache(lambda: moments.m2.op("Sqrt"))
    relative_mean = cache(lambda: moments.mean / moments.scale)
    constant = cache(lambda: deviation().op("LessOrEqual", relative_mean().op("Abs") * ROUNDING))

    def unless_constant(value: Number) -> Number:
        zero = emit.constant(0, np.float64)
        return Number(emit("Where", constant().value, zero, value.value), emit, np.float64)

    return {
        "l1": lambda: moments.l1,
        "l2": lambda: moments.scale * roots * (moments.m2 + relative_mean() * relative_mean()).op("Sqrt"),
        "min": lambda: moments.low,
        "max": lambda: moments.high,
        "mean": lambda: moments.mean,
        "std": lambda: moments.scale * deviation(),
        "skewness": lambda: unless_constant(moments.m3 / (moments.m2 * deviation())),
        "kurtosis": lambda: unless_constant(moments.m4 / (moments.m2 * moments.m2) - 3.0),
    }
