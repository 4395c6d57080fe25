"""Pass 5a: keep gradients behind max pools at the pool's own size wherever only the statistics need them.

Requires: a differentiated graph. Ensures: slopes of activations are taken before unpooling, and a convolution whose δ nobody
but the kernels reads hands them the pooled gradient; they unpool it one sample at a time, in cache. What is left out of the
graph, the Indices of a pool and the scatter at full resolution, are the dearest nodes of a small CNN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from gradscore.graph.activations import activated
from gradscore.graph.emitter import attribute
from gradscore.graph.forms import ChannelSum, Convolution, Form, Unpooled
from gradscore.graph.gradient import Differentiated

_SLOPES = {"LeakyReluGrad": "LeakyRelu", "ReluGrad": "Relu"}


@dataclass(frozen=True)
class _Pooled:
    """A MaxPoolGrad node and the pool whose gradient it is."""

    node: ir.Node
    pool: ir.Node


def keep_pooled(gradient: Differentiated, forms: Sequence[Form]) -> dict[str, Unpooled]:
    """Rewrite the graph in place; returns, by the convolution's output, what its δ is unpooled from."""
    graph = gradient.model.graph
    for node in list(graph):
        if node.op_type in _SLOPES:
            _slope_before_unpooling(node)
    common_passes.TopologicalSortPass()(gradient.model)
    found = {}
    for position, value in enumerate(gradient.wrt, start=1):
        pooled = _unpooling(graph.outputs[position])
        readers = [form for form in forms if any(output.name == value.name for output in form.outputs)]
        if pooled is None or list(graph.outputs[position].uses()) or not all(map(_reads_pooled, readers)):
            continue
        source, activation = pooled.node.inputs[0], pooled.pool.inputs[0]
        if source is not None and activation is not None:
            graph.outputs[position] = source
            found[str(value.name)] = Unpooled(activation, _geometry(pooled.pool))
    return found


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
