"""Every family of the zoo against torch in float64, one sample at a time, layer by layer."""

import numpy as np
import pytest

from gradscore import Scorer, prepare
from tests.support import oracle, zoo

RTOL = 1e-3
NOISE = 1e-6  # a layer whose whole gradient is smaller than this share of the network's is float32 rounding
BOTH_EXPORTERS = ("attention", "cnn_1d", "gru", "resnet", "unet", "vit")


@pytest.fixture(scope="session")
def scoring_models(tmp_path_factory):
    """Return a function: member, exporter -> module, example and the path of the scoring model, made once."""
    folder = tmp_path_factory.mktemp("zoo")

    def make(name, exporter=None):
        exporter = exporter or zoo.EXPORTERS.get(name, "dynamo")
        module, example = zoo.build(name)
        path = folder / f"{name}-{exporter}.scoring.onnx"
        if not path.exists():
            zoo.export(module, example, path.with_suffix(".classifier"), exporter)
            prepare(path.with_suffix(".classifier"), path)
        return module, example, path

    return make


def compare(name, module, example, scorer):
    """Compare every layer that is a module or parameter of the model; returns the parameters that no layer covers."""
    scores = scorer.score(example.numpy())
    for row in range(len(example)):
        label, by_name, residual = zoo.gradients(module, example[row])
        assert scores.label[row] == label
        assert scores.residual[row] == pytest.approx(residual, rel=RTOL)
        unmatched = {key for key in by_name if not zoo.is_folded(name, key)}
        network = oracle.statistics(np.concatenate(list(by_name.values())))["l2"]
        for layer, chosen in zoo.matched(name, scorer.metadata, by_name):
            unmatched -= set(chosen)
            if not chosen:
                yield layer.name
                continue
            found, expected = zoo.layer_features(scores, row, layer, chosen, by_name)
            if expected[f"{layer.name}.l2"] > NOISE * network:
                oracle.assert_features(found, expected, rtol=RTOL, context=name)
            else:
                assert found[f"{layer.name}.l2"] < 10 * NOISE * network
        yield from unmatched


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_layer_equals_torch(name, scoring_models):
    module, example, path = scoring_models(name)
    unmatched = set(compare(name, module, example, Scorer.load(path)))
    assert not unmatched or name in zoo.FOLDED, f"{name}: the table and the model differ in {sorted(unmatched)}"


@pytest.mark.parametrize("name", BOTH_EXPORTERS)
def test_the_older_exporter_gives_the_same(name, scoring_models):
    module, example, path = scoring_models(name, "torchscript")
    scorer = Scorer.load(path)
    unmatched = set(compare(name, module, example, scorer))
    assert not scorer.metadata.uncovered
    assert not unmatched, f"{name}: the table and the model differ in {sorted(unmatched)}"
    assert [layer.name for layer in scorer.metadata.layers] == [
        layer.name for layer in Scorer.load(scoring_models(name)[2]).metadata.layers
    ]


def test_a_scikit_learn_classifier_equals_torch(tmp_path):
    """Its converter names layers its own way, so that all weights together are compared; labels by name are left out."""
    module, example = zoo.perceptron()
    zoo.export(module, example, tmp_path / "c.onnx", "skl2onnx")
    metadata = prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")
    assert len(metadata.layers) == 3
    assert (
        sum(item.count for layer in metadata.layers for item in layer.parameters)
        == 6 * 12 + 12 + 12 * 8 + 8 + 8 * 5 + 5
    )
    scores = Scorer.load(tmp_path / "s.onnx").score(example.numpy())
    for row in range(len(example)):
        label, by_name, _ = zoo.gradients(module, example[row])
        assert scores.label[row] == label
        wanted = oracle.statistics(np.concatenate(list(by_name.values())))
        expected = {f"all.{key}": value for key, value in wanted.items()}
        oracle.assert_features({key: scores[key][row] for key in expected}, expected, rtol=RTOL)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_pooled_inputs_of_three_depths_have_the_columns_that_are_named(name, scoring_models):
    _, example, path = scoring_models(name)
    scorer = Scorer.load(path, features=["pooled"])
    scores = scorer.score(example.numpy())
    named = [column for column in scorer.feature_names if ".pooled." in column]
    assert 1 <= len({column.split(".pooled.")[0] for column in named}) <= 3
    assert scores.features.shape == (len(example), len(scorer.feature_names))
    assert np.isfinite(scores.features).all()
