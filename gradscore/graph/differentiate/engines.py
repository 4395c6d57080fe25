"""Engines that differentiate a serialised graph.

`ort-training` is onnxruntime-training's GradientGraphBuilder, in a process and an environment of its own. `onnx-ad` is
an optional pure-Python package: slower graphs, for Pythons without the builder's wheel and as a second opinion.
"""

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from onnx import ModelProto, TensorProto, helper

from gradscore.errors import BuilderError, UnsupportedOpError
from gradscore.graph.differentiate import builder
from gradscore.graph.differentiate.activations import DERIVATIVES, Derivative
from gradscore.graph.differentiate.static_batch import free_batch, show_static_batch

_SHIFT = "gradscore/shift/"


class GradientEngine(Protocol):
    """Adds a gradient graph to a serialised model.

    `proxies` are the activations that the engine is shown a Sigmoid for, since it does not know them.
    """

    name: str
    proxies: Mapping[str, Derivative]

    def differentiate(self, model: bytes, target: str, wrt: Sequence[str]) -> bytes:
        """Return the model with `<value>_grad` for each value of `wrt`, fed by `<target>_grad`."""


class OrtTrainingEngine:
    """The gradient builder of onnxruntime-training."""

    name = "ort-training"
    proxies: Mapping[str, Derivative] = DERIVATIVES

    def differentiate(self, model: bytes, target: str, wrt: Sequence[str]) -> bytes:
        """Return the model with its gradient graph; a refusal names the operator."""
        try:
            return builder.differentiate(model, target, wrt)
        except BuilderError as error:
            missing = re.search(r"has not been registered: (\w+) for node ?(\S*)", str(error))
            if missing:
                raise UnsupportedOpError(
                    f"node {missing[2]!r} ({missing[1]}) has no gradient in the builder: try --engine onnx-ad, or export "
                    "the model without this operator"
                ) from error
            if "GradientForOp" in str(error):
                raise UnsupportedOpError(f"{error}; export the model without this operator") from error
            raise


class OnnxAdEngine:
    """The package onnx-ad, which differentiates by graph inputs only.

    Each value v asked for becomes v + shift with an input `shift` of its size; the shift's adjoint is v's gradient, and
    the shift is taken out again. Where it wants static shapes, it is shown a batch size that is then made symbolic again.
    """

    name = "onnx-ad"
    proxies: Mapping[str, Derivative] = {}

    def differentiate(self, model: bytes, target: str, wrt: Sequence[str]) -> bytes:
        """Return the model with its gradient graph."""
        try:
            onnx_ad: Any = importlib.import_module("onnx_ad")
        except ImportError as error:
            raise BuilderError("the engine onnx-ad is not installed: run `pip install onnx-ad`") from error
        try:
            try:
                return self._reversed(onnx_ad, model, target, wrt)
            except onnx_ad.UnsupportedOperator:  # many of its rules want static shapes
                return free_batch(self._reversed(onnx_ad, show_static_batch(model), target, wrt))
        except onnx_ad.UnsupportedOperator as error:
            raise UnsupportedOpError(f"onnx-ad refuses this graph: {error}; try --engine ort-training") from error

    @staticmethod
    def _reversed(onnx_ad: Any, model: bytes, target: str, wrt: Sequence[str]) -> bytes:
        proto = ModelProto()
        proto.ParseFromString(model)
        shifts = _shift(proto, wrt)
        adjoint = onnx_ad.reverse(
            proto, outputs=[target], inputs=list(shifts.values()), prefix="adj/", dim="nadj", layout="onnx"
        )  # fmt: skip
        answer: bytes = _unshifted(adjoint, target, shifts).SerializeToString()
        return answer


ENGINES: dict[str, GradientEngine] = {engine.name: engine for engine in (OrtTrainingEngine(), OnnxAdEngine())}


def _shift(proto: ModelProto, wrt: Sequence[str]) -> dict[str, str]:
    """Add a shift input to each computed value of `wrt`; returns the input to differentiate by for each value."""
    graph = proto.graph
    inputs = {value.name for value in graph.input}
    shapes = {value.name: value for value in (*graph.value_info, *graph.output)}
    chosen = {}
    for name in wrt:
        if name in inputs:
            chosen[name] = name
            continue
        shift = f"{_SHIFT}{name}"
        for node in graph.node:
            for index, source in enumerate(node.input):
                if source == name:
                    node.input[index] = f"{shift}/sum"
        position = next(index for index, node in enumerate(graph.node) if name in node.output)
        graph.node.insert(position + 1, helper.make_node("Add", [name, shift], [f"{shift}/sum"], name=shift))
        for value, called in ((graph.input.add(), shift), (graph.value_info.add(), f"{shift}/sum")):
            value.CopyFrom(shapes[name])
            value.name = called
        chosen[name] = shift
    return chosen


def _unshifted(proto: ModelProto, target: str, shifts: Mapping[str, str]) -> ModelProto:
    """Take the shifts out, and the axis of seed directions that onnx-ad appends."""
    graph = proto.graph
    own = {name: shift for name, shift in shifts.items() if shift != name}
    renamed = {f"{shift}/sum": name for name, shift in own.items()} | {shift: name for name, shift in own.items()}
    kept = [node for node in graph.node if node.output[0] not in renamed]
    for node in kept:
        for index, source in enumerate(node.input):
            node.input[index] = renamed.get(source, source)
    last = helper.make_tensor("gradscore/last", TensorProto.INT64, [1], [-1])
    seed = helper.make_node("Unsqueeze", [f"{target}_grad", last.name], [f"adj/{target}"], name="gradscore/seed")
    ends = [
        helper.make_node("Squeeze", [f"adj/{shift}", last.name], [f"{name}_grad"], name=f"{name}_grad")
        for name, shift in shifts.items()
    ]
    del graph.node[:]
    graph.node.extend([seed, *kept, *ends])
    graph.initializer.append(last)
    for value in [item for item in graph.input if item.name.startswith((_SHIFT, "adj/"))]:
        graph.input.remove(value)
    return proto
