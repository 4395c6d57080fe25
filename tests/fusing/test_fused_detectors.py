"""Detectors in self-scoring models: the same numbers in any runtime."""

import numpy as np
import onnx
import pytest
import torch

from gradscore import InputError, MismatchError, ModelError, Scorer, Verdict, fuse, learn_reference, open_source
from gradscore.detectors import DETECTORS, DetectorReference
from gradscore.fusing import detector_nodes
from gradscore.scoring.detector_columns import DETECTOR_COLUMNS
from models.digits_cnn import DigitsCNN
from tests.fusing.test_fusing import run


@pytest.fixture(scope="module")
def digits(prepared, tmp_path_factory):
    """A scoring model, its reference, and pictures."""
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("fused-detectors")
    model = prepared("fused-detectors", DigitsCNN().eval(), torch.zeros(2, 1, 8, 8))
    rows = 2 * np.random.default_rng(3).random((200, 1, 8, 8), dtype=np.float32)
    np.save(folder / "known.npy", rows[:, 0])
    learn_reference(model, open_source([folder / "known.npy"]), folder / "reference")
    return model, folder / "reference", rows


def verdict_for(scorer, rows, select):
    scores = scorer.score(rows)
    outcome = scores["all.l2"] + np.random.default_rng(1).standard_normal(len(rows)) * scores["all.l2"].std()
    return Verdict.fit(
        scores.features, outcome < np.median(outcome), feature_names=scores.feature_names, select=select, folds=0,
        model_fingerprint=scorer.fingerprint, method="ridge", reference_sha256=scorer.reference_sha256,
    )  # fmt: skip


def test_every_detector_runs_in_the_file(digits, tmp_path):
    model, reference, rows = digits
    scorer = Scorer.load(model, features=[*DETECTOR_COLUMNS, "gradnorm", "energy"], reference=reference)
    chosen = [*DETECTOR_COLUMNS, "gradnorm", "energy"]
    verdict = verdict_for(scorer, rows, chosen)
    metadata = fuse(model, tmp_path / "f.onnx", verdict=verdict, reference=reference)
    assert set(metadata.used_features) == set(chosen) | {"residual"}
    new = np.random.default_rng(9).random((50, 1, 8, 8), dtype=np.float32)
    found = run(tmp_path / "f.onnx", new)["p_correct"]
    np.testing.assert_allclose(found, verdict.apply(scorer.score(new).features), atol=1e-5)
    assert {node.domain for node in onnx.load(tmp_path / "f.onnx").graph.node} == {""}
    new[3] = np.nan
    broken = run(tmp_path / "f.onnx", new)["p_correct"]
    assert np.isnan(broken[3])
    np.testing.assert_allclose(np.delete(broken, 3), np.delete(found, 3), atol=1e-6)


@pytest.mark.parametrize("name", ["gen", "knn", "mahalanobis_layers", "openmax", "ash_b", "grad_kfac_unit"])
def test_a_detector_alone(name, digits, tmp_path):
    model, reference, rows = digits
    scorer = Scorer.load(model, features=[name], reference=reference)
    verdict = verdict_for(scorer, rows, [name])
    fuse(model, tmp_path / "f.onnx", verdict=verdict, reference=reference if DETECTORS[name].has_reference else None)
    found = run(tmp_path / "f.onnx", rows[:40])["p_correct"]
    np.testing.assert_allclose(found, verdict.apply(scorer.score(rows[:40]).features), atol=1e-5)


def test_a_verdict_needs_its_reference(digits, tmp_path, monkeypatch):
    model, reference, rows = digits
    verdict = verdict_for(Scorer.load(model, features=["knn"], reference=reference), rows, ["knn"])
    with pytest.raises(InputError, match=r"knn .*no reference: `gradscore reference"):
        fuse(model, tmp_path / "f.onnx", verdict=verdict)
    DetectorReference(DetectorReference.load(reference).arrays, "another", 3).save(tmp_path / "foreign")
    with pytest.raises(MismatchError, match="the reference belongs to the scoring model another"):
        fuse(model, tmp_path / "f.onnx", verdict=verdict, reference=tmp_path / "foreign")
    held = DetectorReference.load(reference)
    DetectorReference({"knn": held.of("knn")}, held.model_fingerprint, 3).save(tmp_path / "other")
    with pytest.raises(MismatchError, match="references of detectors differ: the verdict has"):
        fuse(model, tmp_path / "f.onnx", verdict=verdict, reference=tmp_path / "other")
    monkeypatch.setattr(detector_nodes, "LARGEST", 1000)
    with pytest.raises(ModelError, match=r"have [\d,]+ bytes of reference, and a self-scoring model may hold 1,000"):
        fuse(model, tmp_path / "f.onnx", verdict=verdict, reference=reference)
    assert not (tmp_path / "f.onnx").exists()
