"""The gradient engines agree where both take a model, and say clearly why not where one does not."""

import numpy as np
import pytest
import torch

from gradscore import BuilderError, InputError, Scorer, UnsupportedOpError, export_classifier, prepare
from gradscore.graph.differentiate.engines import ENGINES
from tests.support import zoo

BOTH = ("attention", "bert", "cnn_1d", "gru", "shared", "unet", "vit")


@pytest.mark.parametrize("name", BOTH)
def test_engines_agree(name, prepared, tmp_path):
    pytest.importorskip("onnx_ad", reason="the optional engine onnx-ad is not installed")
    module, example = zoo.build(name)
    first = prepared(f"zoo-{name}", module, example)
    classifier = first.with_name(f"zoo-{name}.onnx")
    metadata = prepare(classifier, tmp_path / "second.onnx", engine="onnx-ad")
    assert metadata.engine == "onnx-ad"
    one, two = (Scorer.load(path).score(example.numpy()) for path in (first, tmp_path / "second.onnx"))
    np.testing.assert_array_equal(one.label, two.label)
    norms = [index for index, feature in enumerate(one.feature_names) if feature.endswith((".l1", ".l2", ".std"))]
    np.testing.assert_allclose(one.features[:, norms], two.features[:, norms], rtol=1e-3, atol=1e-9)


class Strided(torch.nn.Module):
    """Every second column: a Slice by steps, whose gradient onnx-ad does not know."""

    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(4, 8), torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.last(torch.relu(self.first(x))[:, ::2])


def test_what_one_engine_refuses_names_the_other(tmp_path):
    pytest.importorskip("onnx_ad", reason="the optional engine onnx-ad is not installed")
    export_classifier(Strided(), torch.zeros(2, 4), tmp_path / "c.onnx")
    with pytest.raises(UnsupportedOpError, match=r"onnx-ad refuses this graph: Slice .*--engine ort-training"):
        prepare(tmp_path / "c.onnx", tmp_path / "scoring.onnx", engine="onnx-ad")


def test_an_engine_that_is_not_installed_says_how_to_get_it(monkeypatch):
    import importlib

    def refuse(name, *_):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(BuilderError, match="pip install onnx-ad"):
        ENGINES["onnx-ad"].differentiate(b"", "y", ["x"])


def test_an_unknown_engine_lists_those_there_are(prepared, tmp_path):
    from models.mlp import MLP

    path = prepared("mlp-engine", MLP(), torch.zeros(2, 20))
    with pytest.raises(InputError, match="--engine takes ort-training, onnx-ad"):
        prepare(path.with_name("mlp-engine.onnx"), tmp_path / "scoring.onnx", engine="abacus")
