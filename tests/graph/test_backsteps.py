"""Stacks of convolutions and max pools, which the kernels back-propagate through: against torch in float64."""

import copy
import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from gradscore import ModelError, Scorer, export_classifier, fuse, prepare
from gradscore.model.file_kinds import METADATA_KEY
from gradscore.model.metadata import ModelMetadata
from gradscore.runtime.session import open_session
from tests.support import oracle


class Stack(nn.Module):
    """Features, then a dense layer of as many inputs as they give."""

    def __init__(self, shape, *features):
        super().__init__()
        self.features = nn.Sequential(*features).eval()
        self.fc = nn.Linear(self.features(torch.zeros(1, *shape)).numel(), 5)

    def forward(self, x):
        return self.fc(self.features(x).flatten(1))


def pooled(channels, filters, *, activation=None, pool=None, **geometry):
    """A convolution, an activation and a pool."""
    return [nn.Conv2d(channels, filters, 3, **geometry), activation or nn.LeakyReLU(0.1), pool or nn.MaxPool2d(2)]


# Each: the input's shape, the features, and how many gradients the kernels pass back.
STACKS = {
    "two": ((1, 16, 15), lambda: [*pooled(1, 6), *pooled(6, 7)], 1),
    "three": ((2, 24, 24), lambda: [*pooled(2, 5, padding=1), *pooled(5, 16, padding=1), *pooled(16, 4, padding=1)], 2),
    "relu": ((1, 15, 16), lambda: [*pooled(1, 6, activation=nn.ReLU()), *pooled(6, 7, activation=nn.ReLU())], 1),
    "no activation": ((1, 15, 16), lambda: [*pooled(1, 6, activation=nn.Identity()), *pooled(6, 7)], 1),
    "pool above alone": ((1, 12, 12), lambda: [nn.Conv2d(1, 8, 3), nn.ReLU(), *pooled(8, 7)], 1),
    "no pool above": ((1, 15, 15), lambda: [*pooled(1, 6), nn.Conv2d(6, 4, 3), nn.ReLU()], 0),
    "strides": ((3, 29, 27), lambda: [*pooled(3, 6, stride=2, padding=1), *pooled(6, 8, stride=(1, 2), padding=2)], 1),
    "dilations": ((2, 22, 21), lambda: [*pooled(2, 6, dilation=2), *pooled(6, 8, dilation=(1, 2), bias=False)], 1),
    "ceil": ((1, 16, 17), lambda: [*pooled(1, 6), *pooled(6, 7, pool=nn.MaxPool2d(2, ceil_mode=True))], 1),
    "overlapping": ((1, 20, 20), lambda: [*pooled(1, 6), *pooled(6, 7, pool=nn.MaxPool2d(3, 2, padding=1))], 1),
    "every position": ((1, 16, 16), lambda: [*pooled(1, 6), *pooled(6, 7, pool=nn.MaxPool2d(3, 1))], 0),
    "groups": ((2, 16, 16), lambda: [*pooled(2, 6, groups=2), *pooled(6, 9, groups=3)], 0),
    "dropout": ((1, 16, 16), lambda: [*pooled(1, 6), nn.Dropout(), *pooled(6, 7)], 1),
    "another activation above": ((1, 16, 16), lambda: [*pooled(1, 6), *pooled(6, 7, activation=nn.Tanh())], 0),
    "another activation": ((1, 16, 16), lambda: [*pooled(1, 6, activation=nn.Sigmoid()), *pooled(6, 7)], 0),
    "one dimension": (
        (2, 60),
        lambda: [nn.Conv1d(2, 9, 5), nn.ReLU(), nn.MaxPool1d(3), nn.Conv1d(9, 4, 3), nn.ReLU(), nn.MaxPool1d(2)],
        1,
    ),
    "three dimensions": (
        (1, 9, 10, 9),
        lambda: [
            nn.Conv3d(1, 4, 2),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.Conv3d(4, 3, 2),
            nn.ReLU(),
            nn.MaxPool3d((1, 2, 2)),
        ],
        1,
    ),
}


@pytest.fixture(scope="module")
def scoring_models(tmp_path_factory):
    """Return a function: name of a stack -> module, shape of an input, path of the scoring model, made once."""
    folder = tmp_path_factory.mktemp("stacks")

    def make(name):
        shape, features, _ = STACKS[name]
        torch.manual_seed(4)
        module, path = Stack(shape, *features()).eval(), folder / f"{name}.onnx"
        if not path.exists():
            export_classifier(module, torch.zeros(2, *shape), path.with_suffix(".classifier"))
            prepare(path.with_suffix(".classifier"), path)
        return module, shape, path

    return make


def assert_rows(module, inputs, names, features, rtol=1e-4):
    for row, sample in enumerate(inputs):
        _, expected = oracle.features_of(module, sample)
        oracle.assert_features(dict(zip(names, features[row], strict=True)), expected, rtol=rtol)


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("backend", ["native", "numba", "reference", "graph"])
def test_every_feature_equals_the_oracle(backend, name, scoring_models, rng):
    module, shape, path = scoring_models(name)
    scorer = Scorer.load(path, backend=backend)
    assert len(scorer.metadata.backsteps) == STACKS[name][2]
    inputs = rng.standard_normal((4, *shape)).astype(np.float32)
    scores = scorer.score(inputs)
    assert_rows(module, inputs, scores.feature_names, scores.features, rtol=2e-3 if backend == "graph" else 1e-4)
    np.testing.assert_array_equal(scorer.score(inputs).features, scores.features)


@pytest.mark.parametrize("name", ["two", "three", "overlapping"])
def test_gradients_themselves_are_torchs(name, scoring_models, rng):
    module, shape, path = scoring_models(name)
    inputs = rng.standard_normal((2, *shape)).astype(np.float32)
    found = Scorer.load(path).layer_gradients(inputs)
    for row, sample in enumerate(inputs):
        double = copy.deepcopy(module).double()
        logits = double(torch.as_tensor(sample)[None].double())[0]
        parameters = dict(double.named_parameters())
        gradients = torch.autograd.grad(logits, list(parameters.values()), oracle.seed(logits.detach())[1])
        for parameter, gradient in zip(parameters, gradients, strict=True):
            own = found[parameter.rpartition(".")[0]][parameter][row]
            np.testing.assert_allclose(own, gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize("name", ["two", "three", "ceil"])
def test_the_self_scoring_form_has_them_back_in_the_graph(name, scoring_models, rng, tmp_path):
    _, shape, path = scoring_models(name)
    fuse(path, tmp_path / "self.onnx", features=["*"])
    inputs = rng.standard_normal((3, *shape)).astype(np.float32)
    session = open_session(tmp_path / "self.onnx")
    (found,) = session.run(["features"], {session.get_inputs()[0].name: inputs})
    expected = Scorer.load(path).score(inputs)
    scale = np.maximum(np.abs(expected.features), 1e-3)
    np.testing.assert_allclose(found / scale, expected.features / scale, atol=2e-3)


def test_neighbours_in_windows_are_compared_with_one_another(scoring_models, tmp_path):
    """A device that rounds the input of a convolution rounds both neighbours alike, but not the pool's output."""
    fuse(scoring_models("three")[2], tmp_path / "self.onnx", features=["*"])
    graph = onnx.load(tmp_path / "self.onnx").graph
    made_by = {output: node for node in graph.node for output in node.output}
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    comparisons = [made_by[node.input[0]] for node in graph.node if node.op_type == "HardSigmoid"]
    assert [node.op_type for node in comparisons] == ["Conv"] * 3 * 2
    for node in comparisons:
        assert all(sorted(kernel[kernel != 0]) == [-1, 1] for kernel in weights[node.input[1]])


def test_the_graph_ends_at_the_uppermost_pool(scoring_models):
    path = scoring_models("three")[2]
    nodes = [node.op_type for node in onnx.load(path).graph.node]
    assert "ScatterElements" not in nodes
    assert nodes.count("Conv") == 3  # those of the classifier alone


def test_weights_are_fetched_once(scoring_models, rng):
    _, shape, path = scoring_models("three")
    scorer = Scorer.load(path, threads=1)
    constants = scorer.metadata.constants
    asked = []
    session = scorer._computation._session._session

    class Spy:
        get_providers = session.get_providers

        def run(self, names, *rest):
            asked.append(constants & set(names))
            return session.run(names, *rest)

    scorer._computation._session._session = Spy()
    inputs = rng.standard_normal((4, *shape)).astype(np.float32)
    first = scorer.score(inputs).features
    np.testing.assert_array_equal(scorer.score(inputs).features, first)
    assert asked == [constants, set()]
    assert len(constants) == 2


def test_nan_in_one_input_spoils_that_row_alone(scoring_models, rng):
    _, shape, path = scoring_models("three")
    inputs = rng.standard_normal((5, *shape)).astype(np.float32)
    scorer = Scorer.load(path)
    clean = scorer.score(inputs).features
    inputs[2, 0, 3, 3] = np.nan
    spoilt = scorer.score(inputs).features
    assert np.isnan(spoilt[2]).all()
    np.testing.assert_array_equal(np.delete(spoilt, 2, 0), np.delete(clean, 2, 0))


def test_activations_and_gradnorm_stand_beside(scoring_models, rng):
    _, shape, path = scoring_models("two")
    inputs = rng.standard_normal((3, *shape)).astype(np.float32)
    plain, more = Scorer.load(path), Scorer.load(path, features=["activations", "gradnorm"])
    scores = more.score(inputs)
    np.testing.assert_array_equal(scores.features[:, : len(plain.feature_names)], plain.score(inputs).features)
    np.testing.assert_allclose(scores["features.0.activation.l1"], np.abs(inputs).sum((1, 2, 3)), rtol=1e-6)


def test_models_of_the_format_before_are_read(scoring_models, tmp_path, rng):
    """They name no backsteps, and their graphs pass every gradient back themselves."""
    _, shape, path = scoring_models("no pool above")
    raw = json.loads(Scorer.load(path).metadata.to_json()) | {"format_version": 1}
    assert not raw.pop("backsteps")
    model = onnx.load(path)
    entry = next(entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    entry.value = json.dumps(raw)
    onnx.save(model, tmp_path / "before.onnx")
    inputs = rng.standard_normal((3, *shape)).astype(np.float32)
    expected = Scorer.load(path).score(inputs).features
    np.testing.assert_array_equal(Scorer.load(tmp_path / "before.onnx").score(inputs).features, expected)
    with pytest.raises(ModelError, match="has scoring-model format 3, this gradscore reads 2: run `gradscore prepare`"):
        ModelMetadata.from_json(json.dumps(raw | {"format_version": 3}), where="model")
