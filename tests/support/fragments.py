"""A few ONNX operators between two dense layers, and their gradients by finite differences in float64.

The oracle runs the reference evaluator of the ONNX specification and shares no code with the toolkit. A fragment of nodes
maps `h` [B, *shape] to `o`. Around it stand h = x·first and logits = flatten(o)·last. So the gradient of `first` shows δ at
h, the fragment's own weights show their own gradients, and no operator in between needs a formula here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.support import oracle

CLASSES, FEATURES, STEP = 4, 3, 1e-5


@dataclass(frozen=True)
class Fragment:
    """Nodes in ONNX's text form from `h` to `o`, the shape of `h` without its batch, and their constants.

    A weight is given by its shape and drawn at random. A constant is given as an array and is no parameter. `instead` is
    the same computation in torch, for operators that the reference evaluator lacks or computes wrongly.
    """

    text: str
    shape: tuple[int, ...]
    weights: dict[str, tuple[int, ...]] = field(default_factory=dict)
    constants: dict[str, object] = field(default_factory=dict)
    opset: int = 18
    instead: Callable[..., torch.Tensor] | None = None

    @cached_property
    def values(self):
        """Return the weights in float32, by name."""
        rng = np.random.default_rng(len(self.text))
        return {name: (0.7 * rng.standard_normal(shape)).astype(np.float32) for name, shape in self.weights.items()}

    @cached_property
    def first(self):
        """The dense weight before `h`."""
        rng = np.random.default_rng(sum(self.shape))
        return rng.standard_normal((FEATURES, int(np.prod(self.shape)))).astype(np.float32)

    @cached_property
    def last(self):
        """The dense weight after `o`."""
        rng = np.random.default_rng(len(self.text))
        size = int(np.prod(self.run(rng.standard_normal((1, *self.shape))).shape[1:]))
        return (rng.standard_normal((size, CLASSES)) / np.sqrt(size)).astype(np.float32)

    def nodes(self):
        body = "agraph (float[N] h) => (float[N] o) {\n" + self.text + "\n}"
        return list(onnx.parser.parse_graph(body).node)

    def run(self, data, **changed):
        """Run the fragment in float64 on h [B, *shape]; `changed` replaces weights."""
        weights = {name: changed.get(name, value).astype(np.float64) for name, value in self.values.items()}
        if self.instead is not None:
            return self.instead(*(torch.from_numpy(array) for array in (data, *weights.values()))).numpy()
        return self._evaluator.run(None, {"h": data, **weights})[0]

    @cached_property
    def _evaluator(self):
        inputs = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in ("h", *self.values)]
        output = helper.make_tensor_value_info("o", TensorProto.DOUBLE, None)
        graph = helper.make_graph(_doubled(self.nodes()), "fragment", inputs, [output], self._constants(np.float64))
        return ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)]))

    def _constants(self, kind):
        arrays = {name: np.asarray(value) for name, value in self.constants.items()}
        return [
            numpy_helper.from_array(array.astype(kind) if array.dtype.kind == "f" else array, name)
            for name, array in arrays.items()
        ]

    def model(self):
        """Return the classifier around the fragment: x [batch, 3] -> logits [batch, 4]."""
        nodes = [
            helper.make_node("MatMul", ["x", "first.weight"], ["first_out"], "first"),
            helper.make_node("Reshape", ["first_out", "h_shape"], ["h"], "shaping"),
            *self.nodes(),
            helper.make_node("Flatten", ["o"], ["flat"], "flatten"),
            helper.make_node("MatMul", ["flat", "last.weight"], ["logits"], "last"),
        ]
        weights = {"first.weight": self.first, **self.values, "last.weight": self.last}
        initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
        initializers += [*self._constants(np.float32), numpy_helper.from_array(np.array([0, *self.shape]), "h_shape")]
        graph = helper.make_graph(
            nodes, "classifier", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])], initializers,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def gradients(self, x):
        """Return label, residual and {parameter: ∂L/∂parameter} of each sample of x [B, 3]."""
        data = (x.astype(np.float64) @ self.first).reshape(-1, *self.shape)
        outputs = self.run(data).reshape(len(x), -1)
        seeds = [oracle.seed(torch.from_numpy(row @ self.last)) for row in outputs]
        at_output = np.stack([self.last @ seed.numpy() for _, seed, _ in seeds])
        weights = {name: self._weight_gradient(name, data, at_output) for name in self.values}
        found = []
        for row, (label, seed, residual) in enumerate(seeds):
            at_data = self._data_gradient(data[row], at_output[row])
            own = {name: gradient[row] for name, gradient in weights.items()}
            ends = {"first.weight": np.outer(x[row], at_data), "last.weight": np.outer(outputs[row], seed.numpy())}
            found.append((label, residual, {name: value.ravel() for name, value in (ends | own).items()}))
        return found

    def _data_gradient(self, data, at_output):
        steps = STEP * np.eye(data.size).reshape(-1, *data.shape)
        difference = self.run(data + steps) - self.run(data - steps)
        return difference.reshape(data.size, -1) @ at_output / (2 * STEP)

    def _weight_gradient(self, name, data, at_output):
        gradient = np.empty((len(data), self.values[name].size))
        for index in range(self.values[name].size):
            step = np.zeros(self.values[name].size)
            step[index] = STEP
            step = step.reshape(self.values[name].shape)
            difference = self.run(data, **{name: self.values[name] + step}) - self.run(
                data, **{name: self.values[name] - step}
            )
            gradient[:, index] = (difference.reshape(len(data), -1) * at_output).sum(1) / (2 * STEP)
        return gradient


def check(fragment, scorer, x, *, rtol=1e-3):
    """Compare every feature of every layer with the fragment's finite differences."""
    scores = scorer.score(x)
    assert not scorer.metadata.uncovered
    for row, (label, residual, gradients) in enumerate(fragment.gradients(x)):
        assert scores.label[row] == label
        assert abs(scores.residual[row] - residual) <= rtol * residual
        actual = dict(zip(scores.feature_names, scores.features[row], strict=True))
        layers = {layer.name: [item.name for item in layer.parameters] for layer in scorer.metadata.layers}
        assert sorted(name for names in layers.values() for name in names) == sorted(gradients)
        for layer, names in [*layers.items(), ("all", list(gradients))]:
            wanted = oracle.statistics(np.concatenate([gradients[name] for name in names]))
            expected = {f"{layer}.{key}": value for key, value in wanted.items()}
            oracle.assert_features({key: actual[key] for key in expected}, expected, rtol=rtol, context=f"row {row}")


def _doubled(nodes):
    for node in nodes:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
    return nodes
