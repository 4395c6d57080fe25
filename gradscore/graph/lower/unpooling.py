"""Pass 5a: keep gradients behind max pools at the pool's own size wherever only the statistics need them.

Requires: a differentiated graph. Ensures: slopes of activations are taken before unpooling; a convolution whose δ nobody but
the kernels reads hands them the pooled gradient, which they unpool one sample at a time, in cache; and where the next such
convolution stands right in front of it, the kernels pass the gradient back to that one too, so that in a stack of
convolutions and pools the graph stops at the uppermost pool. What is left out of the graph, the Indices of a pool, the
scatter at full resolution and convolutions of zeros, are the dearest nodes of a small CNN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from gradscore.graph.differentiate.activations import activated
from gradscore.graph.differentiate.gradient import Differentiated
from gradscore.graph.layers.forms import ChannelSum, Convolution, Form, PassedBack, Unpooled
from gradscore.graph.nodes.emitter import attribute

_SLOPES = {"LeakyReluGrad": "LeakyRelu", "ReluGrad": "Relu"}


@dataclass(frozen=True)
class _Pooled:
    """A MaxPoolGrad node and the pool whose gradient it is."""

    node: ir.Node
    pool: ir.Node


def keep_pooled(gradient: Differentiated, forms: Sequence[Form]) -> tuple[dict[str, Unpooled], tuple[PassedBack, ...]]:
    """Rewrite the graph in place.

    Returns, by the convolution's output, what its δ is unpooled from, and the gradients that the kernels pass back, each
    after those that it follows from.
    """
    graph = gradient.model.graph
    for node in list(graph):
        if node.op_type in _SLOPES:
            _slope_before_unpooling(node)
    common_passes.TopologicalSortPass()(gradient.model)
    kept = _Kept(graph, gradient.wrt, forms)
    for position in range(1, len(graph.outputs)):
        kept.take(position)
    return kept.unpooled, tuple(reversed(kept.passed))


@dataclass
class _Kept:
    """What the graph hands to the kernels; `positions` are those of its outputs, of which the first is the logits."""

    graph: ir.Graph
    wrt: Sequence[ir.Value]
    forms: Sequence[Form]
    unpooled: dict[str, Unpooled] = field(default_factory=dict)
    passed: list[PassedBack] = field(default_factory=list)
    done: set[int] = field(default_factory=set)

    def take(self, position: int) -> None:
        """Take the gradient at an output to the kernels, as it is before unpooling, or before what makes that."""
        if position in self.done or not self._read_by_kernels_alone(position, uses=0):
            return
        self.done.add(position)
        pooled = _unpooling(self.graph.outputs[position])
        if pooled is not None and (source := pooled.node.inputs[0]) is not None and (seen := pooled.pool.inputs[0]):
            self._hand_over(position, source)
            self.unpooled[self._name(position)] = Unpooled(seen, _geometry(pooled.pool))
        if (above := self._pass_back(position)) is not None:
            self.take(above)

    def _pass_back(self, position: int) -> int | None:
        """Leave a convolution's input gradient to the kernels; returns the position of that convolution's own."""
        value = self.graph.outputs[position]
        found = _passing(value)
        if found is None or list(value.uses()) or list(self.graph.outputs).count(value) > 1:
            return None
        gradient, activation, weight = found.conv.inputs
        above = next((i for i, output in enumerate(self.graph.outputs) if output is gradient), 0)
        form = next((form for form in self._readers(above) if isinstance(form, Convolution)), None) if above else None
        pooled = _unpooling(gradient)
        if (
            form is None or pooled is None or activation is None or weight is None or not weight.is_initializer()
            or form.geometry["groups"] != 1
            or prod(_geometry(pooled.pool)["strides"]) == 1  # nothing is zero
            or not self._read_by_kernels_alone(above, uses=1)
        ):  # fmt: skip
            return None
        stand_in = ir.Value(name=value.name, shape=value.shape, type=value.type)
        self._hand_over(position, stand_in)
        self.passed.append(PassedBack(stand_in, activation, form.output, weight, form.geometry, found.slope))
        return above

    def _hand_over(self, position: int, value: ir.Value) -> None:
        """Put out a value instead of what the kernels make of it, and compute that no more."""
        old = self.graph.outputs[position]
        self.graph.outputs[position] = value
        _remove_unread(self.graph, old)

    def _name(self, position: int) -> str:
        return str(self.wrt[position - 1].name)

    def _readers(self, position: int) -> list[Form]:
        name = self._name(position)
        return [form for form in self.forms if any(output.name == name for output in form.outputs)]

    def _read_by_kernels_alone(self, position: int, *, uses: int) -> bool:
        """Whether the graph itself has no more uses of a gradient, and those of the kernels can do with a pooled one."""
        value = self.graph.outputs[position]
        return len(list(value.uses())) == uses and all(map(_reads_pooled, self._readers(position)))


@dataclass(frozen=True)
class _Passing:
    """A ConvGrad, and the slope of the activation in front of it: 1 for none."""

    conv: ir.Node
    slope: float


def _passing(value: ir.Value) -> _Passing | None:
    """Return what passes a value back from the convolution whose input the activation made."""
    node, slope, seen = value.producer(), 1.0, None
    if node is not None and node.op_type in _SLOPES:
        slope = float(attribute(node, "alpha", 0.01)) if node.op_type == "LeakyReluGrad" else 0.0
        seen = activated(node.inputs[1], _SLOPES[node.op_type])
        inner = node.inputs[0]
        node = inner.producer() if inner is not None and len(list(inner.uses())) == 1 else None
    if node is None or node.op_type != "ConvGrad" or not 0 <= slope <= 1:
        return None
    if any(output.uses() for output in node.outputs[1:]) or (seen is not None and seen is not node.inputs[1]):
        return None
    return _Passing(node, slope)


def _remove_unread(graph: ir.Graph, value: ir.Value) -> None:
    """Remove the node of a value that nobody reads, and those that only that one read."""
    node = value.producer()
    if node is None or any(output.uses() or output.is_graph_output() for output in node.outputs):
        return
    read = [item for item in node.inputs if item is not None]
    graph.remove(node, safe=True)
    for item in read:
        _remove_unread(graph, item)


def _reads_pooled(form: Form) -> bool:
    plain_convolution = isinstance(form, Convolution) and not form.transposed
    return plain_convolution or (isinstance(form, ChannelSum) and not form.channels_last)


def _geometry(pool: ir.Node) -> Mapping[str, Any]:
    kernel = attribute(pool, "kernel_shape", [])
    return {
        "kernel": kernel,
        "strides": attribute(pool, "strides", [1] * len(kernel)),
        "dilations": attribute(pool, "dilations", [1] * len(kernel)),
        "pads": attribute(pool, "pads", [0] * (2 * len(kernel))),
    }


def _unpooling(value: ir.Value | None) -> _Pooled | None:
    """Return the MaxPoolGrad that computes a value, and its pool."""
    node = value.producer() if value is not None else None
    while (
        node is not None
        and node.op_type in ("Identity", "Sum")
        and len(node.inputs) == 1
        and node.inputs[0] is not None
    ):
        node = node.inputs[0].producer()
    if node is None or node.op_type != "MaxPoolGrad" or node.inputs[1] is None:
        return None
    pool = node.inputs[1].producer()
    is_plain = pool is not None and pool.op_type == "MaxPool" and not attribute(pool, "storage_order", 0)
    return _Pooled(node, pool) if is_plain and pool is not None else None


def _slope_before_unpooling(node: ir.Node) -> None:
    """Slope(MaxPoolGrad(dP), y) = MaxPoolGrad(Slope(dP, maxpool(y))), at a fraction of the size.

    A pool hands its gradient to the positions of its maxima, where the slope is that of the maximum.
    """
    found = _unpooling(node.inputs[0])
    if found is None or len(list(found.node.outputs[0].uses())) != 1 or found.node.outputs[0].is_graph_output():
        return
    if found.pool.inputs[0] is not activated(node.inputs[1], _SLOPES[node.op_type]):
        return
    unpooled, sloped, pooled = found.node.outputs[0], node.outputs[0], found.node.inputs[0]
    if pooled is None:
        return
    sloped.replace_all_uses_with(unpooled, replace_graph_outputs=True)
    unpooled.shape, unpooled.type = sloped.shape, sloped.type
    node.replace_input_with(0, pooled)
    node.replace_input_with(1, found.pool.outputs[0])
    found.node.replace_input_with(0, sloped)
    sloped.shape, sloped.type = pooled.shape, pooled.type
