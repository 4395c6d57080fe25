"""Pass 8: the eight statistics of every layer's gradient, and of all together, as part of the graph: the self-scoring form.

Requires: a scoring model's graph and its layer table. Ensures: one value [B, F] with the features asked for, of the unit seed,
in standard operators with kernels on CPU and GPU; what serves no feature asked for is not emitted, or falls to the removal of
unused nodes. Single precision holds, since everything is measured from means and in units of the largest |g|.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from math import sqrt

import numpy as np
import onnx_ir as ir

from gradscore.errors import InputError
from gradscore.graph.arithmetic import Number
from gradscore.graph.emitter import Emitter
from gradscore.graph.gradient import values_of
from gradscore.graph.statistic_explicit import add_explicit
from gradscore.graph.statistic_gradients import Contraction, Explicit, Gradient, Large, Product, Sparse, Values
from gradscore.graph.statistic_moments import Key, Moments, MomentTable, add_products, add_sparse
from gradscore.graph.statistic_rules import RULES
from gradscore.graph.statistic_samples import add_contraction, add_large
from gradscore.metadata import ALL_LAYERS, LAYER_STATISTICS, Layer, Parameter, Reduction

_SMALL = 4096
AT_ONCE = 1 << 17  # numbers of one sample's gradient that may stand in memory for a whole batch
ROUNDING = 1e-6  # a standard deviation below this part of the mean is single-precision rounding of a constant
Asked = Mapping[str, frozenset[str]]
Members = dict[str, list[Key]]
Gradients = dict[Key, tuple[Gradient, frozenset[str]]]


def append_statistics(
    graph: ir.Graph, layers: Sequence[Layer], features: Sequence[str], *, at_once: int = AT_ONCE
) -> ir.Value:
    """Append the statistics of layers to a scoring graph; returns features of the unit seed, float32 [B, F].

    Parameters
    ----------
    features
        Names `<layer>.<statistic>`, the layer being "all" for all together; at least one.
    at_once
        Gradients of more numbers a sample are computed one sample after the other.

    Raises
    ------
    InputError
        A name is none of these.
    UnsupportedOpError
        A value that a reduction reads has no fixed size where one is needed.
    """
    asked = _evened(_asked(layers, features), layers)
    emit = Emitter(graph, "statistics")
    members = _members(layers)
    values = values_of(graph)
    gradients = _gradients(layers, members, asked, values, emit, at_once)
    members, gradients = _joined(members, gradients)
    table = _table(gradients, values, emit)
    blocks: list[Number] = []
    column: dict[str, int] = {}
    for names, statistics in _alike(asked):
        keys = [[key for key in members[name] if key in gradients] for name in names]
        counts = [[gradients[key][0].count for key in own] for own in keys]
        found = _statistics(_merged(keys, counts, table, emit), np.array([sum(own) for own in counts]), emit)
        for statistic in statistics:
            column |= {f"{name}.{statistic}": len(column) + place for place, name in enumerate(names)}
            blocks.append(found[statistic]())
    whole = blocks[0].op("Concat", *blocks[1:], axis=1) if len(blocks) > 1 else blocks[0]
    order = [column[feature] for feature in features]
    return whole.op("Gather", emit.integers(*order), axis=1).value if order != list(range(len(column))) else whole.value


def _asked(layers: Sequence[Layer], features: Sequence[str]) -> Asked:
    """Return the statistics wanted of each layer."""
    known = [*(layer.name for layer in layers), ALL_LAYERS]
    asked: dict[str, set[str]] = {}
    for feature in features:
        layer, _, statistic = feature.rpartition(".")
        if layer not in known or statistic not in LAYER_STATISTICS:
            raise InputError(
                f"there is no feature {feature!r}: the statistics {', '.join(LAYER_STATISTICS)} of {', '.join(known)}"
            )
        asked.setdefault(layer, set()).add(statistic)
    return {layer: frozenset(asked[layer]) for layer in known if layer in asked}


def _evened(asked: Asked, layers: Sequence[Layer]) -> Asked:
    """Let small layers have the statistics of one another: together they take fewer nodes than each its own few."""
    small = [layer.name for layer in layers if layer.name in asked and _largest(layer) <= _SMALL]
    union = frozenset(statistic for name in small for statistic in asked[name])
    return {**asked, **dict.fromkeys(small, union)}


def _largest(layer: Layer) -> int:
    """Return the size of the longest tensor that a layer's statistics are read from."""
    pairs = zip(layer.reductions, layer.parameters, strict=True)
    return max(max(item.shape) if reduction.kernel == "outer" else item.count for reduction, item in pairs)


def _members(layers: Sequence[Layer]) -> Members:
    """Number the reductions of all layers; "all" has every one."""
    members, position = {}, 0
    for layer in layers:
        members[layer.name] = [(position + index, "") for index in range(len(layer.reductions))]
        position += len(layer.reductions)
    return {**members, ALL_LAYERS: [key for own in members.values() for key in own]}


def _gradients(
    layers: Sequence[Layer], members: Members, asked: Asked, values: Values, emit: Emitter, at_once: int
) -> Gradients:  # fmt: skip
    """Emit each gradient of which some statistic is wanted, for its layer or for all."""
    gradients = {}
    for layer in layers:
        wanted = asked.get(layer.name, frozenset()) | asked.get(ALL_LAYERS, frozenset())
        pairs: list[tuple[Reduction, Parameter]] = list(zip(layer.reductions, layer.parameters, strict=True))
        for key, (reduction, parameter) in zip(members[layer.name], pairs, strict=True) if wanted else ():
            gradients[key] = _gradient(reduction, parameter, values, emit, at_once), wanted
    return gradients


def _gradient(reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter, at_once: int) -> Gradient:
    rule = RULES[reduction.kernel]
    if rule.making(reduction, parameter, values) > at_once:
        return Large(rule, reduction, parameter)
    gradient = rule.gradient(reduction, parameter, values, emit)
    is_small = gradient.count <= (_SMALL if isinstance(gradient, Product) else at_once)
    return gradient.explicit(emit) if isinstance(gradient, Product | Contraction) and is_small else gradient


def _joined(members: Members, gradients: Gradients) -> tuple[Members, Gradients]:
    """Lay what small gradients a layer has side by side: its statistics are those of all of them together."""
    joined = dict(gradients)
    for layer, keys in members.items():
        own = [key for key in keys if layer != ALL_LAYERS and key in gradients]
        parts = {key: part for key in own for part, _ in [gradients[key]] if isinstance(part, Explicit)}
        small = {key: part for key, part in parts.items() if part.count <= _SMALL}
        if len(small) > 1:
            first, *others = small
            value, *beside = (part.value for part in small.values())
            together = Explicit(value, sum(part.count for part in small.values()), tuple(beside))
            joined[first] = together, gradients[first][1]
            for key in others:
                del joined[key]
    return {layer: [key for key in keys if key in joined] for layer, keys in members.items()}, joined


def _table(gradients: Gradients, values: Values, emit: Emitter) -> MomentTable:
    """Emit the moments of all gradients, those of the factors of outer products among the others."""
    table = MomentTable(emit)
    explicit: dict[Key, tuple[Explicit, frozenset[str]]] = {}
    factors: dict[frozenset[str], dict[Key, tuple[Key, Key]]] = {}
    for (position, part), (gradient, wanted) in gradients.items():
        if isinstance(gradient, Product):
            pair = (position, f"{part}first"), (position, f"{part}second")
            explicit |= {pair[0]: (gradient.first, wanted), pair[1]: (gradient.second, wanted)}
            factors.setdefault(wanted, {})[position, part] = pair
        elif isinstance(gradient, Explicit):
            explicit[position, part] = gradient, wanted
    add_explicit(explicit, table, emit)
    for wanted, pairs in factors.items():
        add_products(pairs, table, wanted)
    for key, (gradient, wanted) in gradients.items():
        if isinstance(gradient, Sparse):
            add_sparse(key, gradient, table, wanted, emit)
        elif isinstance(gradient, Contraction):
            add_contraction(key, gradient, table, wanted, emit)
        elif isinstance(gradient, Large):
            add_large(key, gradient, values, table, wanted, emit)
    return table


def _alike(asked: Asked) -> list[tuple[list[str], list[str]]]:
    """Group layers of which the same statistics are wanted; "all" stays alone, for it has many more parts."""
    groups: dict[tuple[bool, frozenset[str]], list[str]] = {}
    for layer, statistics in asked.items():
        groups.setdefault((layer == ALL_LAYERS, statistics), []).append(layer)
    return [
        (names, [statistic for statistic in LAYER_STATISTICS if statistic in statistics])
        for (_, statistics), names in groups.items()
    ]


def _merged(
    keys: Sequence[Sequence[Key]], counts: Sequence[Sequence[int]], table: MomentTable, emit: Emitter
) -> Moments:  # fmt: skip
    """Merge the parts of each layer (Pébay 2008, as `gradscore_kernels.merge`); moments [B, layers]."""
    most = max(map(len, keys))
    if most == 1:
        return table.take([own[0] for own in keys], [len(keys)])
    padded = [[*own, *[own[0]] * (most - len(own))] for own in keys]
    parts = table.take([key for own in padded for key in own], [len(keys), most])
    sizes = np.array([[*own, *[0] * (most - len(own))] for own in counts], dtype=np.float64)
    counted = Number(emit.constant(sizes > 0, np.float32), emit)
    share = Number(emit.constant(sizes / sizes.sum(1, keepdims=True), np.float32), emit)
    last = emit.integers(2)
    mean = cache(lambda: (parts.mean * share).total(2, keepdims=1))
    flat = cache(lambda: mean().op("Squeeze", last))
    scale = cache(lambda: parts.scale.largest(2, keepdims=1))
    d, ratio = cache(lambda: (parts.mean - mean()) / scale()), cache(lambda: parts.scale / scale())
    dd, square = cache(lambda: d() * d()), cache(lambda: ratio() * ratio())
    m2, m3 = cache(lambda: parts.m2 * square()), cache(lambda: parts.m3 * (square() * ratio()))
    return Moments(
        l1=lambda: (parts.l1 * counted).total(2),
        low=lambda: parts.low.smallest(2) + flat() * 0,
        high=lambda: parts.high.largest(2) + flat() * 0,
        mean=flat,
        scale=lambda: scale().op("Squeeze", last),
        m2=lambda: ((m2() + dd()) * share).total(2),
        m3=lambda: ((m3() + d() * (3 * m2() + dd())) * share).total(2),
        m4=lambda: ((parts.m4 * (square() * square()) + d() * (4 * m3() + d() * (6 * m2() + dd()))) * share).total(2),
    )


def _statistics(moments: Moments, counts: np.ndarray, emit: Emitter) -> dict[str, Callable[[], Number]]:
    """How moments become the statistics, [B, layers] each; skewness and kurtosis of a constant are 0."""
    roots = Number(emit.constant([sqrt(count) for count in counts], np.float32), emit)
    deviation = cache(lambda: moments.m2.op("Sqrt"))
    relative_mean = cache(lambda: moments.mean / moments.scale)
    constant = cache(lambda: deviation().op("LessOrEqual", relative_mean().op("Abs") * ROUNDING))

    def unless_constant(value: Number) -> Number:
        return Number(emit("Where", constant().value, emit.constant(0, np.float32), value.value), emit)

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
