"""Half-precision classifiers: scored in single precision, their own inputs and outputs as they were."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from gradscore import Scorer, export_classifier, prepare
from gradscore.runtime.session import open_session
from tests.support import oracle

SHAPE = (1, 8, 8)


def network():
    torch.manual_seed(3)
    module = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 24),
        nn.LayerNorm(24), nn.GELU(), nn.Linear(24, 5),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return module.eval()


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """The network whose numbers float16 can hold, and the paths of its float16 classifier and scoring model."""
    folder = tmp_path_factory.mktemp("half")
    module = network().half()
    export_classifier(nn.Sequential(*module, nn.Softmax(-1)), torch.zeros(2, *SHAPE).half(), folder / "c.onnx")
    prepare(folder / "c.onnx", folder / "s.onnx")
    return module.float(), folder / "c.onnx", folder / "s.onnx"


@pytest.fixture
def inputs(rng):
    return rng.standard_normal((4, *SHAPE)).astype(np.float16)


def test_features_are_those_of_the_same_weights_in_double_precision(half, inputs):
    module, _, path = half
    scorer = Scorer.load(path)
    scores = scorer.score(inputs)
    assert scorer.metadata.inputs[0].dtype == "float16"
    for row in range(len(inputs)):
        label, expected = oracle.features_of(module, inputs[row])
        assert scores.label[row] == label
        actual = dict(zip(scores.feature_names, scores.features[row], strict=True))
        oracle.assert_features(actual, expected, rtol=1e-3)


def test_inputs_and_outputs_stay_as_they_were(half, inputs):
    _, classifier, path = half
    model = onnx.load(path)
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    kinds = {output.name: output.type.tensor_type.elem_type for output in model.graph.output}
    [own] = [output.name for output in onnx.load(classifier).graph.output]
    assert kinds[own] == TensorProto.FLOAT16
    assert not [weight.name for weight in model.graph.initializer if weight.data_type == TensorProto.FLOAT16]
    expected = open_session(classifier).run([own], {"input": inputs})[0]
    actual = open_session(path).run([own], {model.graph.input[0].name: inputs})[0]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-3)


def test_other_precisions_and_pixels_are_taken(half, inputs):
    scorer = Scorer.load(half[2])
    expected = scorer.score(inputs).features
    np.testing.assert_array_equal(scorer.score(inputs.astype(np.float64)).features, expected)
    pixels = np.arange(128, dtype=np.uint8).reshape(2, *SHAPE)
    floats = (pixels.astype(np.float32) / 255).astype(np.float16)
    np.testing.assert_array_equal(scorer.score(pixels).features, scorer.score(floats).features)


def test_a_classifier_that_computes_in_half_precision_inside(tmp_path, inputs):
    """As autocast exports: weights and inputs in single precision, cast on their way."""

    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 5)

        def forward(self, x):
            hidden = nn.functional.linear(x.flatten(1).half(), self.first.weight.half(), self.first.bias.half())
            return self.last(torch.relu(hidden).float())

    torch.manual_seed(4)
    module = Dense()
    export_classifier(module, torch.zeros(2, *SHAPE), tmp_path / "c.onnx")
    prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")
    scores = Scorer.load(tmp_path / "s.onnx").score(inputs)
    assert np.isfinite(scores.features).all()
    for row in range(len(inputs)):
        label, expected = oracle.features_of(_plain(module), inputs[row].ravel())
        assert scores.label[row] == label
        actual = dict(zip(expected, scores.features[row], strict=True))  # the exporter's cast weights lost their names
        oracle.assert_features(actual, expected, rtol=2e-2)


def _plain(module):
    twin = nn.Sequential()
    twin.add_module("first", module.first)
    twin.add_module("relu", nn.ReLU())
    twin.add_module("last", module.last)
    return twin
