"""Pass 7a: put backsteps, which a scoring model leaves to the kernels, back into the graph.

A backstep passes δ from behind a max pool back through the convolution before it, and the activation before that.

Requires: a scoring model with inferred shapes, and its backsteps. Ensures: every signal that they compute is a value of
the graph under the signal's name, in standard operators.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from gradscore.errors import ModelError
from gradscore.graph.differentiate.gradient import values_of
from gradscore.graph.lower.lowering import lower
from gradscore.graph.nodes.emitter import Emitter, attribute, extents
from gradscore.graph.statistics.first_maxima import halves, interleaved, is_of_pairs, keep_halves
from gradscore.graph.statistics.unfolding import Window
from gradscore.model.layer_table import Backstep


def append_backsteps(model: ir.Model, backsteps: Sequence[Backstep]) -> None:
    """Append each backstep as an engine would write it, Slope(ConvGrad(MaxPoolGrad(δ))), and lower it."""
    graph, parts_of = model.graph, dict[str, list[ir.Value]]()
    for step in backsteps:
        values, emit = values_of(graph), Emitter(graph, "Backstep", about=step.name)
        delta, data, weight = (values[name] for name in (step.delta, step.activation, step.weight))
        shown = weight.producer()  # read the initializer behind the Identity, which runtimes can fold
        geometry = step.attributes["geometry"]
        unpooled = _unpooled(values[step.pooled], delta, step, parts_of, emit)
        passed = emit(
            "ConvGrad", unpooled, data, shown.inputs[0] if shown is not None else weight,
            kernel_shape=geometry["kernel"], strides=geometry["strides"], dilations=geometry["dilations"],
            pads=geometry["pads"], group=geometry["groups"],
        )  # fmt: skip
        sloped = emit("LeakyReluGrad", passed, data, alpha=step.attributes["slope"])
        for value, like in ((unpooled, values[step.pooled]), (passed, data), (sloped, data)):
            value.type, value.shape = delta.type, like.shape
        sloped.name = step.name
        graph.outputs.append(sloped)  # an output keeps its name when it is lowered
    lower(model)
    values = values_of(graph)
    for name, parts in parts_of.items():  # only now: lowering replaces values
        keep_halves(values[name], parts)


def _unpooled(
    seen: ir.Value, delta: ir.Value, step: Backstep, parts_of: dict[str, list[ir.Value]], emit: Emitter
) -> ir.Value:
    """Return δ at the resolution of the pool's input; its halves, if it has any, go into `parts_of`."""
    pool, full, pooled = Window.of(step.attributes["pool"]), _fixed(seen), _fixed(delta)
    if not is_of_pairs(pool, full[1:], pooled[1:]):
        return emit("MaxPoolGrad", delta, _indices(seen, step))
    parts = parts_of[step.delta] = halves(seen, delta, full, pool, emit)
    for place, part in enumerate(parts):
        part.name, part.type = f"{step.delta}/half/{place}", delta.type
    sizes = [count * extent for count, extent in zip(pooled[1:], pool.kernel, strict=True)]
    whole = interleaved(parts, [*sizes[:-1], pooled[-1]], len(sizes) - 1, emit)
    left = [size - seen_by_pool for size, seen_by_pool in zip(full[1:], sizes, strict=True)]
    return emit("Pad", whole, emit.integers(*[0] * (4 + len(left)), *left)) if any(left) else whole


def _fixed(value: ir.Value) -> tuple[int, ...]:
    """Return the fixed sizes after the batch."""
    return tuple(extent for extent in (extents(value) or ())[1:] if extent is not None)


def _indices(chosen_from: ir.Value, step: Backstep) -> ir.Value:
    """Return the Indices of the pool that reads a value; add the output if missing."""
    pools = (use.node for use in chosen_from.uses() if use.node.op_type == "MaxPool")
    pool = next((node for node in pools if _is(node, step.attributes["pool"])), None)
    if pool is None:
        raise ModelError(
            f"the scoring model has lost the pool behind {step.pooled!r}: make it again with `gradscore prepare`"
        )
    if len(pool.outputs) < 2:
        pool.resize_outputs(2)
        pool.outputs[1].name = f"{pool.outputs[0].name}/indices"
    return pool.outputs[1]


def _is(node: ir.Node, geometry: Mapping[str, Any]) -> bool:
    rank = len(geometry["kernel"])
    defaults = {"strides": [1] * rank, "dilations": [1] * rank, "pads": [0] * (2 * rank)}
    return attribute(node, "kernel_shape", []) == list(geometry["kernel"]) and all(
        attribute(node, name, default) == list(geometry[name]) for name, default in defaults.items()
    )
