"""Recipes in self-scoring models, with the extra features that they read, and the same features from the back end graph."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from gradscore import InputError, Scorer, Verdict, fuse, prepare
from gradscore.fusing.tolerance import scale_of
from gradscore.graph.assemble.input_features import RULES
from gradscore.model.layer_inputs import NAMES_OF, WIDEST
from gradscore.model.selfscoring import MEANINGS
from gradscore.preparing.inspection import inspect_model
from gradscore.runtime.session import open_session
from tests.support import zoo

RTOL = 1e-4
EXTRA = ("activations", "pooled", "gradnorm", "penultimate", "logits", "max_logit", "energy", "margin")
ADDED = ["label", "p_correct", "p_right", "p_known", "accept", "why", "entropy", "max_softmax", "residual"]


def write_any_length(path):
    """A classifier of sequences whose length stays open."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18]>
        sequences (float[N, T, 6] x) => (float[N, 3] y)
        {
            hidden = MatMul(x, each)
            kept = Relu(hidden)
            mean = ReduceMean<keepdims = 0>(kept, axis)
            y = MatMul(mean, last)
        }"""
    )
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in (("each", (6, 12)), ("last", (12, 3)))
    }
    for name, array in (*arrays.items(), ("axis", np.array([1]))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, path)


class Wide(nn.Sequential):
    """A layer with more channels than pooled inputs keep."""

    def __init__(self):
        super().__init__(
            nn.Conv1d(2, WIDEST + 9, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(WIDEST + 9, 3)
        )


def build(name):
    if name == "perceptron":
        return zoo.perceptron()
    torch.manual_seed(4)
    return (Wide().eval(), torch.randn(2, 2, 9)) if name == "wide" else zoo.build(name)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function that gives a scoring model by name, and a function that draws rows for it."""
    files = {}

    def scoring(name):
        module, example = build(name)
        if name not in files:
            folder = tmp_path_factory.mktemp(name)
            zoo.export(module, example, folder / "c.onnx")
            prepare(folder / "c.onnx", folder / "s.onnx")
            files[name] = folder / "s.onnx"
        return files[name], lambda count, seed: drawn(example, count, seed)

    return scoring


def drawn(example, count, seed):
    rng = np.random.default_rng(seed)
    if not example.is_floating_point():
        return rng.integers(1, 50, (count, *example.shape[1:]))
    return rng.standard_normal((count, *example.shape[1:])).astype(np.float32)


def fitted(scorer, rows, method):
    """A verdict about random but learnable outcomes; the last quarter are unknown inputs of two kinds."""
    scores = scorer.score(rows)
    count, known = len(rows), len(rows) * 3 // 4
    outcome = np.log(scores["residual"]) + 0.5 * np.random.default_rng(1).standard_normal(count)
    kind = np.where(np.arange(count) < known, -1, np.arange(count) % 2)
    right = (outcome < np.median(outcome)) & (kind < 0)
    return Verdict.fit(
        scores.features, right, feature_names=scores.feature_names, model_fingerprint=scorer.fingerprint, kind=kind,
        label=scores.label, method=method, folds=2,
    )  # fmt: skip


def run(path, rows, **options):
    session = open_session(path, threads=1, **options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: rows}), strict=True))


def assert_answers(found, verdict, scores):
    expected = verdict.answers(scores.features)
    for name in ("p_correct", "p_right", "p_known"):
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], getattr(expected, name), rtol=0, atol=1e-5, err_msg=name)
    accepted = expected.p_correct >= verdict.threshold
    why = np.where(accepted, 0, np.where(expected.p_known < expected.p_right, 2, 1))
    sure = (np.abs(expected.p_correct - verdict.threshold) > 1e-5) & (
        np.abs(expected.p_known - expected.p_right) > 1e-5
    )
    assert sure.sum() > 0.9 * len(sure)
    np.testing.assert_array_equal(found["accept"][sure], accepted[sure])
    np.testing.assert_array_equal(found["why"][sure], why[sure])


def assert_columns(found, scores, names):
    """Compare extra features with the kernels', each to RTOL of its scale."""
    for column, name in enumerate(names):
        scale = np.maximum(np.abs(scores[name]), scale_of(name, scores))
        if name.rpartition(".")[0].endswith(("pooled", "penultimate", "logits")) or name == "margin":
            scale = np.maximum(scale, np.abs(scores[name]).max())
        assert (np.abs(found[:, column] - scores[name]) <= RTOL * scale).all(), name


@pytest.mark.parametrize("name", ["cnn_1d", "perceptron", "attention"])
def test_two_heads_say_the_same_in_one_file(name, made, tmp_path):
    path, rows = made(name)
    with Scorer.load(path, features=["recommended"]) as scorer:
        verdict = fitted(scorer, rows(240, 0), "two-heads")
        metadata = fuse(path, tmp_path / "f.onnx", verdict=verdict)
        fresh = rows(64, 1)
        scores = scorer.score(fresh)
    assert {feature.split(".")[-2] for feature in metadata.used_features if "." in feature} > {"activation", "pooled"}
    for optimize in (True, False):
        found = run(tmp_path / "f.onnx", fresh, optimize=optimize)
        assert list(found) == [*metadata.outputs, *ADDED]
        assert_answers(found, verdict, scores)
    assert_answers({key: values[:7] for key, values in found.items()}, verdict, scores.rows(slice(0, 7)))


@pytest.mark.parametrize("method", ["two-heads", "max-softmax", "auto", "ridge"])
def test_every_recipe_can_be_fused(method, made, tmp_path):
    path, rows = made("perceptron")
    with Scorer.load(path) as scorer:
        verdict = fitted(scorer, rows(240, 0), method)
        fuse(path, tmp_path / "f.onnx", verdict=verdict, features=["*"])
        scores = scorer.score(rows(50, 1))
    assert_answers(run(tmp_path / "f.onnx", rows(50, 1)), verdict, scores)


def test_a_row_with_nan_is_not_judged(made, tmp_path):
    path, rows = made("cnn_1d")
    with Scorer.load(path, features=["recommended"]) as scorer:
        fuse(path, tmp_path / "f.onnx", verdict=fitted(scorer, rows(240, 0), "two-heads"), features=["*", "*.pooled.*"])
    clean, broken = rows(5, 1), rows(5, 1)
    broken[2, 0, 3] = np.nan
    wanted, found = run(tmp_path / "f.onnx", clean), run(tmp_path / "f.onnx", broken)
    others = [0, 1, 3, 4]
    for name in ("p_correct", "p_right", "p_known", "why", "features"):
        np.testing.assert_array_equal(found[name][others], wanted[name][others])
    assert np.isnan([found[name][2] for name in ("p_correct", "p_right", "p_known")]).all()
    assert (found["accept"][2], found["why"][2]) == (False, -1)


@pytest.mark.parametrize("name", ["cnn_1d", "wide", "unet", "attention", "gru"])
def test_the_back_end_graph_has_the_extra_features(name, made):
    path, rows = made(name)
    inputs, kept = rows(9, 3), [extra for extra in EXTRA if name != "gru" or extra not in ("gradnorm", "penultimate")]
    with Scorer.load(path, features=kept) as kernels, Scorer.load(path, features=kept, backend="graph") as graph:
        assert graph.feature_names == kernels.feature_names
        scores, found = kernels.score(inputs), graph.score(inputs)
    names = [one for one in scores.feature_names if one not in kernels.metadata.feature_names]
    assert_columns(np.stack([found[one] for one in names], axis=1), scores, names)


def test_inputs_of_any_length_have_activations(tmp_path, rng):
    write_any_length(tmp_path / "c.onnx")
    prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")
    names = fuse(tmp_path / "s.onnx", tmp_path / "f.onnx", features=["*.activation.*", "*.pooled.*"]).feature_names
    assert len(names) == 2 * 8 + 6 + 12
    for length in (1, 3, 11):
        rows = rng.standard_normal((5, length, 6)).astype(np.float32)
        scores = Scorer.load(tmp_path / "s.onnx", features=["recommended"]).score(rows)
        assert_columns(run(tmp_path / "f.onnx", rows)["features"], scores, names)


def test_patterns_choose_extra_features_where_they_match_no_other(made, tmp_path):
    path, rows = made("perceptron")
    metadata = fuse(path, tmp_path / "f.onnx", features=["4.l2", "energy", "*.pooled.*", "penultimate.1"])
    assert metadata.feature_names[:2] == ("4.l2", "energy")
    assert all(".pooled." in name for name in metadata.feature_names[2:-1])
    assert metadata.feature_names[-1] == "penultimate.1"
    scores = Scorer.load(path, features=EXTRA).score(rows(6, 2))
    assert_columns(run(tmp_path / "f.onnx", rows(6, 2))["features"], scores, metadata.feature_names)
    assert fuse(path, tmp_path / "g.onnx", features=["*"]).feature_names == Scorer.load(path).feature_names


def test_a_feature_that_the_graph_lacks_is_refused(made, tmp_path):
    path, rows = made("perceptron")
    scorer = Scorer.load(path)
    scores = scorer.score(rows(60, 0))
    own = np.c_[scores.features, scores["residual"]]
    verdict = Verdict.fit(
        own, np.arange(60) % 2 == 0, feature_names=(*scores.feature_names, "mine"), model_fingerprint=scorer.fingerprint,
        method="ridge", select=["mine", "residual"], folds=0,
    )  # fmt: skip
    with pytest.raises(InputError, match="reads 'mine', which a self-scoring model does not compute"):
        fuse(path, tmp_path / "f.onnx", verdict=verdict)


def test_only_asked_inputs_are_pooled(made, tmp_path):
    path, _ = made("cnn_1d")
    fuse(path, tmp_path / "few.onnx", features=["*.pooled.0"])
    nodes = onnx.load(tmp_path / "few.onnx").graph.node
    assert not [node for node in nodes if node.op_type in ("ConvTranspose", "ScatterElements")], (
        "nothing is back-propagated"
    )


def test_each_named_feature_has_a_rule():
    assert list(RULES) == list(NAMES_OF)


def test_inspect_says_what_the_outputs_mean(made, tmp_path):
    path, rows = made("perceptron")
    with Scorer.load(path) as scorer:
        fuse(path, tmp_path / "f.onnx", verdict=fitted(scorer, rows(240, 0), "max-softmax"))
    outputs = inspect_model(tmp_path / "f.onnx")["outputs"]
    assert {item["name"]: item["meaning"] for item in outputs[-len(ADDED) :]} == {
        name: MEANINGS[name] for name in ADDED
    }
    assert outputs[0]["meaning"] == "the classifier's own"
    assert "2 looks unknown" in MEANINGS["why"]
