"""Pass 4: differentiate the logits with respect to the layers' outputs.

Requires: a normalised model. Ensures: the same graph plus one value `<output>_grad` per layer, waiting for the seed
`<target>_grad`; initializers are the very tensors that went in, since engines see shapes, not weights.
"""

import re
from collections.abc import Sequence
from typing import Protocol

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from gradscore import builder
from gradscore.errors import BuilderError, ModelError, UnsupportedOpError

TARGET = "gradscore/target"
_LARGEST_CONSTANT = 64
_GRADIENT_NAME = re.compile(r"_grad(_\d+)?$")


class GradientEngine(Protocol):
    """Adds a gradient graph to a serialised model."""

    name: str

    def differentiate(self, model: bytes, target: str, wrt: Sequence[str]) -> bytes:
        """Return the model with `<value>_grad` for each value of `wrt`, fed by `<target>_grad`."""


class OrtTrainingEngine:
    """onnxruntime-training's GradientGraphBuilder, in a process of its own."""

    name = "ort-training"

    def differentiate(self, model: bytes, target: str, wrt: Sequence[str]) -> bytes:
        """Return the model with its gradient graph; a refusal names the operator."""
        try:
            return builder.differentiate(model, target, wrt)
        except BuilderError as error:
            if "gradient" in str(error) and "not" in str(error) and "registered" in str(error):
                raise UnsupportedOpError(f"{error}; export the model without this operator") from error
            raise


ENGINES: dict[str, GradientEngine] = {engine.name: engine for engine in (OrtTrainingEngine(),)}


def add_gradient(model: ir.Model, logits: ir.Value, outputs: Sequence[ir.Value], engine: GradientEngine) -> ir.Model:
    """Return a new model: the graph of `model` with the gradients of `logits` at `outputs`, the seed an input."""
    weights = {name: value.const_value for name, value in model.graph.initializers.items()}
    proto = _weightless(model, logits)
    wrt = [str(output.name) for output in outputs]
    answer = onnx.ModelProto()
    answer.ParseFromString(engine.differentiate(proto.SerializeToString(), TARGET, wrt))
    return _restored(answer, model, weights, str(logits.name), wrt)


def seed_of(graph: ir.Graph) -> ir.Value:
    """Return the input through which the seed enters the gradient graph."""
    return next(value for value in graph.inputs if value.name == f"{TARGET}_grad")


def _weightless(model: ir.Model, logits: ir.Value) -> onnx.ModelProto:
    """Serialise the graph with large floating-point initializers as inputs."""
    clone = model.clone()
    graph = clone.graph
    copy = next(value for value in _values(graph) if value.name == logits.name)
    target = ir.Value(name=TARGET, type=copy.type, shape=copy.shape)
    graph.append(ir.Node("", "Identity", [copy], outputs=[target], name=TARGET))
    graph.outputs.clear()
    graph.outputs.append(target)
    for name, value in list(graph.initializers.items()):
        if value.dtype is not None and value.dtype.is_floating_point() and value.const_value.size > _LARGEST_CONSTANT:
            del graph.initializers[name]
            value.const_value = None
            graph.inputs.append(value)
    return ir.to_proto(clone)


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]


def _restored(
    answer: onnx.ModelProto, model: ir.Model, weights: dict[str, ir.TensorProtocol | None], logits: str, wrt: Sequence[str]
) -> ir.Model:
    seed = answer.graph.input.add()
    seed.CopyFrom(next(output for output in answer.graph.output if output.name == TARGET))
    seed.name = f"{TARGET}_grad"
    restored = ir.from_proto(answer)
    graph = restored.graph
    for value in list(graph.inputs):
        if value.name in weights:
            graph.inputs.remove(value)
            value.const_value = weights[value.name]
            graph.register_initializer(value)
    graph.opset_imports.clear()
    graph.opset_imports.update(model.graph.opset_imports)
    _copy_shapes(model.graph, graph)
    _drop_target(graph, logits, wrt)
    common_passes.TopologicalSortPass()(restored)
    common_passes.RemoveUnusedNodesPass()(restored)
    return restored


def _copy_shapes(source: ir.Graph, graph: ir.Graph) -> None:
    """Give every value the shape inferred before; the gradient of a value has that value's shape."""
    known = {value.name: value for value in _values(source)}
    for value in _values(graph):
        origin = known.get(value.name) or known.get(_GRADIENT_NAME.sub("", value.name or ""))
        if origin is not None:
            value.shape, value.type = origin.shape, origin.type


def _drop_target(graph: ir.Graph, logits: str, wrt: Sequence[str]) -> None:
    values = {value.name: value for value in _values(graph)}
    missing = [name for name in wrt if f"{name}_grad" not in values]
    if missing:
        raise ModelError(f"the logits do not depend on {missing[0]!r}: remove that layer, or choose another --logits NAME")
    graph.outputs.clear()
    graph.outputs.extend([values[logits], *(values[f"{name}_grad"] for name in wrt)])
