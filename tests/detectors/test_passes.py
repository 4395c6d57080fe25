"""Confidences from several predictions, against scipy and a published implementation."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from gradscore.detectors.passes import PASSES
from gradscore.errors import InputError
from tools.published_detectors import drawn_passes

RESULTS = json.loads((Path(__file__).parent / "published.json").read_text())


def test_confidences_equal_the_plain_formulas(rng):
    logits = 3 * rng.standard_normal((6, 20, 4))
    p = softmax(logits, axis=2)
    for row in range(20):
        mean = p[:, row].mean(axis=0)
        whole = entropy(mean)
        wanted = {
            "mean_softmax": mean.max(),
            "predictive_entropy": -whole,
            "mutual_information": -(whole - np.mean([entropy(one) for one in p[:, row]])),
            "agreement": -np.var(p[:, row], axis=0, ddof=1).mean(),
        }
        for name, confidence in PASSES.items():
            assert confidence(logits)[row] == pytest.approx(wanted[name], rel=1e-9), name


def test_confidences_equal_pytorch_ood():
    logits = drawn_passes(RESULTS["seed"])
    np.testing.assert_allclose(-PASSES["mean_softmax"](logits), RESULTS["outlier_scores"]["passes"], rtol=1e-5)
    np.testing.assert_allclose(-PASSES["agreement"](logits), RESULTS["outlier_scores"]["passes_variance"], rtol=1e-5)


def test_passes_that_agree_have_no_mutual_information(rng):
    logits = np.repeat(rng.standard_normal((1, 5, 3)), 4, axis=0)
    np.testing.assert_allclose(PASSES["mutual_information"](logits), 0, atol=1e-15)
    np.testing.assert_allclose(PASSES["agreement"](logits), 0, atol=1e-15)
    certain = np.where(np.arange(3) == 0, 1000.0, 0.0) * np.ones((2, 4, 1))
    assert all(np.isfinite(confidence(certain)).all() for confidence in PASSES.values())


def test_a_nan_stays_in_its_row(rng):
    logits = rng.standard_normal((4, 6, 3))
    clean = {name: confidence(logits) for name, confidence in PASSES.items()}
    logits[1, 2] = np.nan
    for name, confidence in PASSES.items():
        found = confidence(logits)
        assert np.isnan(found[2])
        np.testing.assert_array_equal(np.delete(found, 2), np.delete(clean[name], 2))


def test_impossible_passes():
    assert np.isnan(PASSES["agreement"](np.zeros((1, 2, 3)))).all()
    with pytest.raises(InputError, match=r"logits \[T, N, q\], and these have the shape \(2, 3\)"):
        PASSES["mean_softmax"](np.zeros((2, 3)))
