"""Pass 4: differentiate the logits with respect to the layers' outputs.

Requires: a normalised model. Ensures: the same graph plus the gradient of each value asked for, waiting for its seed;
initializers are the very tensors that went in, since engines see shapes, not weights.
"""

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from gradscore.errors import ModelError
from gradscore.graph.differentiate.engines import GradientEngine
from gradscore.graph.layers.forms import Broadcast, Form, Whole
from gradscore.graph.nodes.running import detach_weights

TARGET = "gradscore/target"
_GRADIENT_NAME = re.compile(r"_grad(_\d+)?$")
_PROXY = "Sigmoid"


@dataclass(frozen=True)
class Differentiated:
    """A model whose outputs are its logits, then the gradients at the values `wrt`, all fed by the input `seed`."""

    model: ir.Model
    seed: ir.Value
    wrt: tuple[ir.Value, ...]

    @property
    def logits(self) -> ir.Value:
        """The logits."""
        return self.model.graph.outputs[0]

    @property
    def deltas(self) -> dict[str, ir.Value]:
        """The gradient at each value of `wrt`, by that value's name, with its shape."""
        found = {str(value.name): delta for value, delta in zip(self.wrt, self.model.graph.outputs[1:], strict=True)}
        for value in self.wrt:
            delta = found[str(value.name)]
            delta.type, delta.shape = value.type, delta.shape if delta.shape is not None else value.shape
        return found


def add_gradient(model: ir.Model, logits: ir.Value, forms: Sequence[Form], engine: GradientEngine) -> Differentiated:
    """Return a copy of the model with the gradients of `logits` at every output of the forms.

    Raises
    ------
    UnsupportedOpError
        The engine has no gradient for an operator.
    ModelError
        The logits do not depend on a layer.
    """
    outputs = {str(output.name): output for form in forms for output in form.outputs}
    request = _request(model, logits, forms, engine.proxies)
    answer = onnx.ModelProto()
    answer.ParseFromString(engine.differentiate(request.SerializeToString(), TARGET, list(outputs)))
    seed = answer.graph.input.add()
    seed.CopyFrom(next(output for output in answer.graph.output if output.name == TARGET))
    seed.name = f"{TARGET}_grad"
    differentiated = ir.from_proto(answer)
    _restore(differentiated.graph, model.graph, forms)
    return _finished(differentiated, str(logits.name), outputs)


def _request(
    model: ir.Model, logits: ir.Value, forms: Sequence[Form], proxies: Container[str]
) -> onnx.ModelProto:  # fmt: skip
    """Serialise the graph for the engine: large weights as inputs, unknown activations as proxies, parameters expanded."""
    clone = model.clone()
    graph = clone.graph
    values = values_of(graph)
    target = ir.Value(name=TARGET, type=values[str(logits.name)].type, shape=logits.shape)
    graph.append(ir.Node("", "Identity", [values[str(logits.name)]], outputs=[target], name=TARGET))
    graph.outputs.clear()
    graph.outputs.append(target)
    for form in forms:
        if isinstance(form, Broadcast):
            _expand(form, graph, values)
    for node in graph:
        _adapt(node, proxies)
    detach_weights(graph)
    whole = {str(form.parameter.name) for form in forms if isinstance(form, Whole)}
    for name in whole & set(graph.initializers):
        value = graph.initializers.pop(name)
        value.const_value = None
        graph.inputs.append(value)
    for value in values_of(graph).values():  # a shape without a type cannot be written
        if value.type is None:
            value.shape = None
    return ir.to_proto(clone)


def _expand(form: Broadcast, graph: ir.Graph, values: dict[str, ir.Value]) -> None:
    """Let an input in the node's own size stand for a parameter that the node repeats."""
    expanded = ir.Value(name=form.output.name, type=form.output.type, shape=form.output.shape)
    graph.inputs.append(expanded)
    node = values[str(form.node.outputs[0].name)].producer()
    if node is not None:
        node.replace_input_with(form.index, expanded)


def _adapt(node: ir.Node, proxies: Container[str]) -> None:
    """Show an engine a Sigmoid for an activation it does not know, and all outputs of a LayerNormalization."""
    if node.op_type == "LayerNormalization" and len(node.outputs) < 3:
        node.resize_outputs(3)
        for index, output in enumerate(node.outputs):
            output.name = output.name or f"{node.outputs[0].name}/statistic_{index}"
    if node.op_type in proxies and _is_floating(node.outputs[0]):
        node.op_type = _PROXY
        node.attributes.clear()
        node.resize_inputs(1)


def _is_floating(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()


def _restore(graph: ir.Graph, source: ir.Graph, forms: Sequence[Form]) -> None:
    """Put back what the engine did not see: weights, parameters in their own size, activations, shapes."""
    values = values_of(graph)
    for name, original in source.initializers.items():
        weight = values.get(name) or ir.Value(name=name)
        if weight.is_graph_input():
            graph.inputs.remove(weight)
        weight.type, weight.shape, weight.const_value = original.type, original.shape, original.const_value
        graph.initializers[name] = weight
    expansions = [form for form in forms if isinstance(form, Broadcast)]
    for form in expansions:
        expanded = values[str(form.output.name)]
        for use in list(expanded.uses()):  # a shape that is read is the full one
            is_shape = use.node.op_type == "Shape"
            instead = (
                values[str(form.node.outputs[0].name)] if is_shape else graph.initializers[str(form.parameter.name)]
            )
            use.node.replace_input_with(use.idx, instead)
        graph.inputs.remove(expanded)
    originals, known = values_of(source), values_of(graph)
    for node in graph:
        if node.op_type == _PROXY and (twin := originals.get(str(node.outputs[0].name))) is not None:
            _unproxy(node, twin.producer(), known)
    _copy_shapes(originals | {str(form.output.name): form.output for form in expansions}, graph)
    graph.opset_imports.clear()
    graph.opset_imports.update(source.opset_imports)


def _unproxy(node: ir.Node, original: ir.Node | None, known: dict[str, ir.Value]) -> None:
    if original is None or original.op_type == _PROXY:
        return
    node.op_type = original.op_type
    for item in original.attributes.values():
        node.attributes.add(item)
    node.resize_inputs(len(original.inputs))
    for index, value in enumerate(original.inputs):
        node.replace_input_with(index, None if value is None else known[str(value.name)])


def _copy_shapes(known: dict[str, ir.Value], graph: ir.Graph) -> None:
    """Give every value the shape inferred before; the gradient of a value has that value's shape."""
    for name, value in values_of(graph).items():
        origin = known.get(name) or known.get(_GRADIENT_NAME.sub("", name))
        if origin is not None:
            value.shape, value.type = origin.shape, origin.type


def _finished(model: ir.Model, logits: str, outputs: dict[str, ir.Value]) -> Differentiated:
    graph = model.graph
    values = values_of(graph)
    missing = [name for name in outputs if f"{name}_grad" not in values]
    if missing:
        raise ModelError(
            f"the logits do not depend on {missing[0]!r}: remove that layer, or choose another --logits NAME"
        )
    graph.outputs.clear()
    graph.outputs.append(values[logits])
    graph.outputs.extend(values[f"{name}_grad"] for name in outputs)
    common_passes.TopologicalSortPass()(model)
    common_passes.RemoveUnusedNodesPass()(model)
    return Differentiated(model, values[f"{TARGET}_grad"], tuple(outputs.values()))


def values_of(graph: ir.Graph) -> dict[str, ir.Value]:
    """Return every value of a graph by name."""
    computed = (value for node in graph for value in node.outputs)
    return {str(value.name): value for value in (*graph.inputs, *graph.initializers.values(), *computed)}
