"""Every activation's derivative against torch in float64, at drawn points and at the very points where it bends."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional as F

from gradscore import Scorer, prepare
from gradscore.graph.differentiate.activations import DERIVATIVES
from tests.support import oracle

WIDTH, CLASSES = 16, 4
BENDS = (-6, -3, -1, -0.5, -0.0, 0, 0.2, 0.5, 1, 2.5, 3, 6, 1e-30, -1e-30, 20, -20)
GENTLE = tuple(np.linspace(-2, 2, WIDTH))
SQUASHED, POSITIVE = "t = Tanh(h)\n o = ", "e = Exp(h)\n t = Add(e, one)\n o = "  # into the domain of the activation
ACTIVATIONS = {  # ONNX's text, the same in torch, points
    "Acos": (SQUASHED + "Acos(t)", lambda h: torch.acos(torch.tanh(h)), GENTLE),
    "Acosh": (POSITIVE + "Acosh(t)", lambda h: torch.acosh(torch.exp(h) + 1), GENTLE),
    "Abs": ("o = Abs(h)", torch.abs, BENDS),
    "Asin": (SQUASHED + "Asin(t)", lambda h: torch.asin(torch.tanh(h)), GENTLE),
    "Asinh": ("o = Asinh(h)", torch.asinh, BENDS),
    "Atan": ("o = Atan(h)", torch.atan, BENDS),
    "Atanh": (SQUASHED + "Atanh(t)", lambda h: torch.atanh(torch.tanh(h)), GENTLE),
    "Ceil": ("o = Ceil(h)", torch.ceil, GENTLE),
    "Celu": ("o = Celu<alpha=1.5>(h)", lambda h: F.celu(h, 1.5), BENDS),
    "Mod": ("o = Mod<fmod=1>(h, high)", lambda h: torch.fmod(h, 1.0), GENTLE),
    "Clip": ("o = Clip(h, low, high)", lambda h: torch.clamp(h, -0.5, 1), BENDS),
    "Clip below": ("o = Clip(h, low)", lambda h: torch.clamp(h, min=-0.5), BENDS),
    "Cos": ("o = Cos(h)", torch.cos, BENDS),
    "Cosh": ("o = Cosh(h)", torch.cosh, BENDS[:14]),
    "Elu": ("o = Elu<alpha=0.7>(h)", lambda h: F.elu(h, 0.7), BENDS),
    "Erf": ("o = Erf(h)", torch.erf, BENDS),
    "Exp": ("o = Exp(h)", torch.exp, GENTLE),
    "Floor": ("o = Floor(h)", torch.floor, GENTLE),
    "HardSigmoid": ("o = HardSigmoid<alpha=0.16666667, beta=0.5>(h)", F.hardsigmoid, BENDS),
    "HardSwish": ("o = HardSwish(h)", F.hardswish, BENDS),
    "LeakyRelu": ("o = LeakyRelu<alpha=0.1>(h)", lambda h: F.leaky_relu(h, 0.1), BENDS),
    "Log": (POSITIVE + "Log(t)", lambda h: torch.log(torch.exp(h) + 1), GENTLE),
    "Max": ("o = Max(h, zero)", lambda h: torch.maximum(h, torch.zeros(1).double()), tuple(b for b in BENDS if b)),
    "Mish": ("o = Mish(h)", F.mish, BENDS),
    "Relu": ("o = Relu(h)", torch.relu, BENDS),
    "Round": ("o = Round(h)", torch.round, GENTLE),
    "Selu": ("o = Selu(h)", F.selu, BENDS),
    "Shrink": ("o = Shrink<lambd=0.5>(h)", lambda h: F.hardshrink(h, 0.5), BENDS),
    "Sigmoid": ("o = Sigmoid(h)", torch.sigmoid, BENDS),
    "Sign": ("o = Sign(h)", torch.sign, BENDS),
    "Sin": ("o = Sin(h)", torch.sin, BENDS),
    "Sinh": ("o = Sinh(h)", torch.sinh, BENDS[:14]),
    "Softplus": ("o = Softplus(h)", F.softplus, BENDS[:14]),
    "Softsign": ("o = Softsign(h)", F.softsign, BENDS),
    "Sqrt": (POSITIVE + "Sqrt(t)", lambda h: torch.sqrt(torch.exp(h) + 1), GENTLE),
    "Tan": (SQUASHED + "Tan(t)", lambda h: torch.tan(torch.tanh(h)), GENTLE),
    "Tanh": ("o = Tanh(h)", torch.tanh, BENDS),
    "ThresholdedRelu": ("o = ThresholdedRelu<alpha=0.5>(h)", lambda h: F.threshold(h, 0.5, 0), BENDS),
}
NEWER = {
    "Gelu": ("o = Gelu(h)", F.gelu, BENDS, 20),
    "Gelu tanh": ('o = Gelu<approximate="tanh">(h)', lambda h: F.gelu(h, approximate="tanh"), BENDS, 20),
    "Swish": ("o = Swish<alpha=1.5>(h)", lambda h: h * torch.sigmoid(1.5 * h), BENDS, 24),
}
CONSTANTS = {"low": -0.5, "high": 1.0, "one": 1.0, "zero": 0.0}


class Bent(torch.nn.Module):
    """Points pass a dense layer that changes nothing, so that they meet the activation exactly."""

    def __init__(self, activation):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.first = torch.nn.Linear(WIDTH, WIDTH)
        self.last = torch.nn.Linear(WIDTH, CLASSES)
        self.activation = activation
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(WIDTH))
            self.first.bias.zero_()
            self.last.weight.copy_(torch.randn(CLASSES, WIDTH, generator=generator) / WIDTH)

    def forward(self, x):
        return self.last(self.activation(self.first(x)))


def nodes_of(text):
    return onnx.parser.parse_graph("agraph (float[N] h) => (float[N] o) {\n" + text + "\n}").node


def prepared(module, text, opset, folder):
    nodes = [
        helper.make_node("Gemm", ["x", "first.weight", "first.bias"], ["h"], "first", transB=1),
        *nodes_of(text),
        helper.make_node("Gemm", ["o", "last.weight", "last.bias"], ["y"], "last", transB=1),
    ]
    weights = [numpy_helper.from_array(value.numpy(), name) for name, value in module.state_dict().items()]
    weights += [numpy_helper.from_array(np.float32(value), name) for name, value in CONSTANTS.items()]
    graph = helper.make_graph(
        nodes, "classifier", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])], weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), folder / "c.onnx")
    prepare(folder / "c.onnx", folder / "s.onnx", overwrite=True)
    return Scorer.load(folder / "s.onnx", threads=1)


def compare(scorer, module, points):
    rows = np.array(points, dtype=np.float32)
    scores = scorer.score(rows)
    for row in range(len(rows)):
        label, expected = oracle.features_of(module, rows[row])
        assert scores.label[row] == label
        actual = dict(zip(scores.feature_names, scores.features[row], strict=True))
        oracle.assert_features(actual, expected, rtol=1e-3, context=f"at {rows[row]}")


@pytest.mark.parametrize("name", ACTIVATIONS | NEWER)
def test_an_activation_equals_torch_where_it_bends_and_elsewhere(name, tmp_path):
    text, activation, points, *opset = (ACTIVATIONS | NEWER)[name]
    module = Bent(activation)
    points = np.resize(points, WIDTH).astype(np.float32)
    low, high = (float(bound) for bound in (points.min(), points.max()))
    with prepared(module, text, *(opset or [18]), tmp_path) as scorer:
        compare(scorer, module, [points, points[::-1], np.random.default_rng(3).uniform(low, high, WIDTH)])
        draw = st.lists(st.floats(low, high, width=32), min_size=WIDTH, max_size=WIDTH)
        smooth = settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        smooth(given(draw)(lambda drawn: compare(scorer, module, [np.where(np.isin(drawn, BENDS), 0.3, drawn)])))()


def test_every_derivative_is_tested():
    tested = {node.op_type for text, *_ in ACTIVATIONS.values() for node in nodes_of(text)}
    assert set(DERIVATIVES) <= tested


def test_equal_maxima_of_a_pool_go_to_the_first_as_in_torch(tmp_path):
    """Black borders tie in nearly every image; two maxima in a window must not both get the gradient."""

    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 3, 1)
            self.fc = torch.nn.Linear(27, 4)

        def forward(self, x):
            return self.fc(F.max_pool2d(torch.relu(self.conv(x)), 3, stride=2, padding=1).flatten(1))

    from gradscore import export_classifier

    torch.manual_seed(2)
    module = Tied().eval()
    export_classifier(module, torch.zeros(2, 1, 6, 6), tmp_path / "c.onnx")
    prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")
    x = np.random.default_rng(1).integers(0, 2, (4, 1, 6, 6)).astype(np.float32)
    scores = Scorer.load(tmp_path / "s.onnx").score(x)
    for row in range(4):
        _, expected = oracle.features_of(module, x[row])
        oracle.assert_features(dict(zip(scores.feature_names, scores.features[row], strict=True)), expected, rtol=1e-3)
