"""Every family of the zoo against torch in float64, one sample at a time, layer by layer."""

import numpy as np
import oracle
import pytest
import zoo

from gradscore import Scorer, prepare

RTOL = 1e-3
NOISE = 1e-6  # a layer whose whole gradient is smaller than this share of the network's is float32 rounding
BOTH_EXPORTERS = ("resnet", "vit", "attention", "cnn_1d", "unet")  # batch norms folded, attention, norms, transposed convolutions


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
        for layer in scorer.metadata.layers:
            chosen = zoo.behind(layer, by_name, unmatched)
            if not chosen:
                yield layer.name
                continue
            found, expected = zoo.layer_features(scores, row, layer, chosen, by_name)
            if expected[f"{layer.name}.l2"] > NOISE * network:
                oracle.assert_features(found, expected, rtol=RTOL, context=name)
            else:
                assert found[f"{layer.name}.l2"] < 10 * NOISE * network
            unmatched -= set(chosen)
        yield from unmatched


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_layer_equals_torch(name, scoring_models):
    module, example, path = scoring_models(name)
    unmatched = set(compare(name, module, example, Scorer.load(path)))
    assert not unmatched or name in zoo.FOLDED, f"{name}: the table and the model differ in {sorted(unmatched)}"


@pytest.mark.parametrize("name", BOTH_EXPORTERS)
def test_the_older_exporter_gives_the_same(name, scoring_models):
    """It folds batch norms into convolutions, whose kernels then differ from torch's by a factor a channel."""
    module, example, path = scoring_models(name, "torchscript")
    scorer = Scorer.load(path)
    unmatched = set(compare(name, module, example, scorer))
    assert not scorer.metadata.uncovered
    assert not unmatched or name == "resnet", f"{name}: the table and the model differ in {sorted(unmatched)}"
