"""Pass 8: append the eight statistics of every layer's gradient to the graph: the self-scoring form.

Requires: a scoring model's graph and its layer table. Ensures: one value [B, F] with the requested features of the unit
seed, in standard operators that have kernels on CPU and GPU. Nodes that serve no requested feature are not emitted, or
are removed later as unused. Single precision is enough, since all moments are central and in units of the largest |g|.
"""

from collections.abc import Sequence

import onnx_ir as ir

from gradscore.errors import InputError
from gradscore.graph.differentiate.gradient import values_of
from gradscore.graph.nodes.emitter import STATISTICS_RULE, Emitter
from gradscore.graph.statistics.explicit import add_explicit
from gradscore.graph.statistics.features import Asked, features_of
from gradscore.graph.statistics.gradients import (
    Contraction,
    Explicit,
    Gradient,
    Large,
    Product,
    SmallProduct,
    Sparse,
    Values,
)
from gradscore.graph.statistics.moments import Key, MomentTable, add_products, add_sparse, wanted_of_factors
from gradscore.graph.statistics.reduction_rules import GRADIENT_RULES
from gradscore.graph.statistics.samples import add_contraction, add_large
from gradscore.graph.statistics.small_products import add_small_products
from gradscore.model.layer_table import Layer, Parameter, Reduction
from gradscore.model.metadata import ALL_LAYERS, LAYER_STATISTICS

_TINY, _SMALL = 512, 4096
AT_ONCE = 1 << 17  # numbers per sample; on a CPU, gradients up to this size are computed for the whole batch at once
Members = dict[str, list[Key]]
Gradients = dict[Key, tuple[Gradient, frozenset[str]]]


def append_statistics(
    graph: ir.Graph, layers: Sequence[Layer], features: Sequence[str], *, at_once: int = AT_ONCE
) -> ir.Value:
    """Append the statistics of layers to a scoring graph; return features of the unit seed.

    Parameters
    ----------
    graph, layers
        The scoring model's graph and its layer table.
    features
        Names `<layer>.<statistic>`, at least one. The layer "all" means all layers together.
    at_once
        Gradients with more numbers per sample are computed one sample after the other.

    Returns
    -------
    ir.Value
        The features, double [B, F].

    Raises
    ------
    InputError
        A feature's layer or statistic does not exist.
    UnsupportedOpError
        A value that a reduction reads has no fixed size, although the statistics need one.
    """
    asked = _evened(_asked(layers, features), layers)
    emit = Emitter(graph, STATISTICS_RULE)
    members = _members(layers)
    values = values_of(graph)
    gradients = _gradients(layers, members, asked, values, emit, at_once)
    members, gradients = _joined(members, gradients, emit)
    table = _table(gradients, values, emit)
    parts = {name: [(key, gradients[key][0].count) for key in members[name] if key in gradients] for name in asked}
    return features_of(asked, parts, table, features, emit)


def _asked(layers: Sequence[Layer], features: Sequence[str]) -> Asked:
    """Return the requested statistics of each layer."""
    known = [*(layer.name for layer in layers), ALL_LAYERS]
    asked: dict[str, set[str]] = {}
    for feature in features:
        layer, _, statistic = feature.rpartition(".")
        if layer not in known or statistic not in LAYER_STATISTICS:
            raise InputError(
                f"there is no feature {feature!r}: write <layer>.<statistic>, with a layer out of {', '.join(known)} and a "
                f"statistic out of {', '.join(LAYER_STATISTICS)}"
            )
        asked.setdefault(layer, set()).add(statistic)
    return {layer: frozenset(asked[layer]) for layer in known if layer in asked}


def _evened(asked: Asked, layers: Sequence[Layer]) -> Asked:
    """Give small layers the union of each other's statistics: together they take fewer nodes.

    Small layers that are not tiny share only with layers of the same size. There, an extra statistic costs more than
    extra nodes.
    """
    sizes = {layer.name: _largest(layer) for layer in layers if layer.name in asked}
    kinds = {name: max(size, _TINY) for name, size in sizes.items() if size <= _SMALL}
    unions = {
        kind: frozenset(statistic for name in kinds if kinds[name] == kind for statistic in asked[name])
        for kind in kinds.values()
    }
    return {name: unions[kinds[name]] if name in kinds else statistics for name, statistics in asked.items()}


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
    """Emit each gradient that a requested statistic needs, of its layer or of all layers."""
    gradients = {}
    for layer in layers:
        wanted = asked.get(layer.name, frozenset()) | asked.get(ALL_LAYERS, frozenset())
        pairs: list[tuple[Reduction, Parameter]] = list(zip(layer.reductions, layer.parameters, strict=True))
        for key, (reduction, parameter) in zip(members[layer.name], pairs, strict=True) if wanted else ():
            gradients[key] = _gradient(reduction, parameter, values, emit, at_once), wanted
    return gradients


def _gradient(reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter, at_once: int) -> Gradient:
    rule = GRADIENT_RULES[reduction.kernel]
    if rule.making(reduction, parameter, values) > at_once:
        return Large(rule, reduction, parameter)
    gradient = rule.gradient(reduction, parameter, values, emit)
    if isinstance(gradient, Product) and _TINY < gradient.count <= _SMALL:
        return SmallProduct(gradient.first, gradient.second)
    is_small = gradient.count <= (_TINY if isinstance(gradient, Product) else at_once)
    return gradient.explicit(emit) if isinstance(gradient, Product | Contraction) and is_small else gradient


def _joined(members: Members, gradients: Gradients, emit: Emitter) -> tuple[Members, Gradients]:
    """Concatenate the small gradients of each layer: its statistics are those of the whole."""
    joined = dict(gradients)
    for layer, keys in members.items():
        own = {key: gradients[key][0] for key in keys if layer != ALL_LAYERS and key in gradients}
        small = {
            key: part for key, part in own.items() if isinstance(part, SmallProduct | Explicit) and part.count <= _SMALL
        }
        if len(small) > 1:
            first, *others = small
            joined[first] = _together(list(small.values()), emit), gradients[first][1]
            for key in others:
                del joined[key]
    return {layer: [key for key in keys if key in joined] for layer, keys in members.items()}, joined


def _together(parts: Sequence[SmallProduct | Explicit], emit: Emitter) -> SmallProduct | Explicit:
    """Concatenate a layer's gradients; the bias of a dense layer becomes one more column of products."""
    dense, *biases = sorted(parts, key=lambda part: not isinstance(part, SmallProduct))
    if isinstance(dense, SmallProduct) and len(biases) == 1 and _same_flattened(dense.second, biases[0]):
        return dense.with_second(emit)
    value, *beside = (part.explicit(emit).value if isinstance(part, SmallProduct) else part.value for part in parts)
    return Explicit(value, sum(part.count for part in parts), tuple(beside))


def _same_flattened(one: Explicit, other: SmallProduct | Explicit) -> bool:
    """Tell whether two gradients are the same value, flattened."""
    nodes = [part.value.producer() for part in (one, other) if isinstance(part, Explicit) and not part.beside]
    sources = [node.inputs[0] for node in nodes if node is not None and node.op_type == "Reshape"]
    return len(sources) == 2 and sources[0] is sources[1]


def _table(gradients: Gradients, values: Values, emit: Emitter) -> MomentTable:
    """Emit the moments of all gradients; the factors of outer products count as gradients."""
    table = MomentTable(emit)
    explicit: dict[Key, tuple[Explicit, frozenset[str]]] = {}
    dense: dict[Key, tuple[SmallProduct, frozenset[str]]] = {}
    factors: dict[frozenset[str], dict[Key, tuple[Key, Key]]] = {}
    for (position, part), (gradient, wanted) in gradients.items():
        if isinstance(gradient, SmallProduct):
            dense[position, part] = gradient, wanted
        elif isinstance(gradient, Product):
            pair = (position, f"{part}first"), (position, f"{part}second")
            of_each = wanted_of_factors(wanted)
            explicit |= {pair[0]: (gradient.first, of_each), pair[1]: (gradient.second, of_each)}
            factors.setdefault(wanted, {})[position, part] = pair
        elif isinstance(gradient, Explicit):
            explicit[position, part] = gradient, wanted
    add_explicit(explicit, table, emit)
    add_small_products(dense, table, emit)
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
