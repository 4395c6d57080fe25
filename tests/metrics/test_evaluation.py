"""Metrics against scikit-learn, against brute force, and against published conventions on a known vector."""

import json
from itertools import pairwise

import numpy as np
import pytest
from sklearn import metrics as sk

from gradscore.errors import InputError
from gradscore.metrics.evaluation import CONVENTIONS, evaluate

KNOWN_ID = [0.9, 0.8, 0.7, 0.6, 0.4]
KNOWN_OOD = [0.75, 0.5, 0.3, 0.2]


def known():
    return np.array(KNOWN_ID + KNOWN_OOD), np.array([True] * 5 + [False] * 4)


def rows(case):
    """Confidences and outcomes: smooth, with many ties, constant, and far apart."""
    rng = np.random.default_rng(7)
    correct = rng.random(400) < 0.8
    smooth = rng.normal(size=400) + correct
    return {
        "smooth": (smooth, correct),
        "ties": (np.round(smooth), correct),
        "constant": (np.zeros(400), correct),
        "perfect": (correct + 0.1 * rng.random(400), correct),
        "reversed": (-correct.astype(float), correct),
        "probability": (1 / (1 + np.exp(-smooth)), correct),
        "infinite": (np.where(rng.random(400) < 0.1, np.inf, smooth), correct),
    }[case]


CASES = ["smooth", "ties", "constant", "perfect", "reversed", "probability", "infinite"]


@pytest.mark.parametrize(
    ("convention", "aupr_in", "aupr_out", "fpr95"),
    [
        ("openood", 0.8348, 0.8110, 0.6000),
        ("hendrycks", 0.8529, 0.8304, 0.5000),
        ("torch-uncertainty", 0.8529, 0.8304, 0.6000),
    ],
)
def test_known_vector(convention, aupr_in, aupr_out, fpr95):
    found = evaluate(*known(), convention=convention)
    assert found.auroc == pytest.approx(0.8, abs=1e-12)
    assert [round(x, 4) for x in (found.aupr_in, found.aupr_out, found.fpr95)] == [aupr_in, aupr_out, fpr95]
    assert (found.correct, found.incorrect, found.accuracy) == (5, 4, 5 / 9)


@pytest.mark.parametrize("case", CASES)
def test_areas_equal_scikit_learn(case):
    confidence, correct = rows(case)
    finite = np.where(np.isinf(confidence), 1e9, confidence)  # scikit-learn refuses infinities; the order is the same
    found = evaluate(confidence, correct)
    assert found.auroc == pytest.approx(sk.roc_auc_score(correct, finite), abs=1e-12)
    assert found.aupr_in == pytest.approx(sk.average_precision_score(correct, finite), abs=1e-12)
    assert found.aupr_out == pytest.approx(sk.average_precision_score(~correct, -finite), abs=1e-12)
    openood = evaluate(confidence, correct, convention="openood")
    for area, label, score in ((openood.aupr_in, correct, finite), (openood.aupr_out, ~correct, -finite)):
        precision, recall, _ = sk.precision_recall_curve(label, score)
        assert area == pytest.approx(sk.auc(recall, precision), abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_fpr95_of_openood_is_the_first_point_of_the_roc_curve(case):
    confidence, correct = rows(case)
    fallout, recall, _ = sk.roc_curve(~correct, -np.where(np.isinf(confidence), 1e9, confidence))
    found = evaluate(confidence, correct, convention="openood").fpr95
    assert found == pytest.approx(fallout[np.argmax(recall >= 0.95)], abs=1e-12)


def nearest_fpr(confidence, positive):
    """Search all thresholds from that of full recall up for the nearest recall, then for the lowest that has it."""
    lowest = confidence[positive].min()
    points = [
        (abs((confidence[positive] >= t).mean() - 0.95), t, (confidence[~positive] >= t).mean())
        for t in np.unique(confidence)
        if t >= lowest
    ]
    return min(points)[2]


@pytest.mark.parametrize("case", CASES)
def test_fpr95_at_the_nearest_threshold_equals_a_search_over_all(case):
    confidence, correct = rows(case)
    assert evaluate(confidence, correct).fpr95 == pytest.approx(nearest_fpr(confidence, correct), abs=1e-12)
    other = evaluate(confidence, correct, convention="torch-uncertainty").fpr95
    assert other == pytest.approx(nearest_fpr(-confidence, ~correct), abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_detection_accuracy_equals_a_search_over_all_thresholds(case):
    confidence, correct = rows(case)
    gains = [
        0.5 * (confidence[correct] >= t).mean() + 0.5 * (confidence[~correct] < t).mean()
        for t in [*np.unique(confidence), np.inf]
    ]
    assert evaluate(confidence, correct).detection_accuracy == pytest.approx(max(0.5, *gains), abs=1e-12)


def risks(correct):
    return np.mean(np.cumsum(~correct) / np.arange(1, len(correct) + 1))


def test_aurc_is_the_mean_risk_over_coverages():
    confidence, correct = rows("smooth")
    found = evaluate(confidence, correct)
    assert found.aurc == pytest.approx(risks(correct[np.argsort(-confidence)]), abs=1e-12)
    assert found.eaurc == pytest.approx(found.aurc - risks(np.sort(correct)[::-1]), abs=1e-12)


def test_aurc_of_ties_is_the_mean_over_their_orders():
    rng = np.random.default_rng(0)
    confidence, correct = np.array([2, 2, 2, 1, 1, 0.0]), np.array([True, False, True, False, True, False])
    orders = [np.lexsort((rng.random(6), -confidence)) for _ in range(20_000)]
    expected = np.mean([risks(correct[order]) for order in orders])
    assert evaluate(confidence, correct).aurc == pytest.approx(expected, abs=3e-3)


def test_a_perfect_ranking_has_no_excess_risk():
    found = evaluate(*rows("perfect"))
    assert (found.auroc, found.aupr_in, found.aupr_out, found.fpr95) == (1.0, 1.0, 1.0, 0.0)
    assert found.eaurc == pytest.approx(0.0, abs=1e-15)


def test_calibration_metrics():
    confidence, correct = rows("probability")
    found = evaluate(confidence, correct)
    assert found.brier == pytest.approx(sk.brier_score_loss(correct, confidence), abs=1e-12)
    edges = np.linspace(0, 1, 16)
    bins = [(confidence > low) & (confidence <= high) for low, high in pairwise(edges)]
    gaps = [inside.mean() * abs(correct[inside].mean() - confidence[inside].mean()) for inside in bins if inside.any()]
    assert found.ece == pytest.approx(sum(gaps), abs=1e-12)


def test_calibration_is_none_where_confidence_is_no_probability():
    found = evaluate(*rows("smooth"))
    assert found.ece is None
    assert found.brier is None


def test_boundary_confidences_are_counted_in_a_bin():
    assert evaluate([0.0, 1.0, 1.0, 0.0], [False, True, False, True]).ece == pytest.approx(0.5)


def test_the_result_is_json_ready():
    found = evaluate(*rows("probability"), resamples=20)
    again = json.loads(json.dumps(found.as_dict()))
    assert again["auroc"] == found.auroc
    assert again["accuracy"] == found.accuracy
    assert again["intervals"]["brier"] == list(found.intervals["brier"])


def test_bootstrap_intervals_are_reproducible_and_hold_the_value():
    confidence, correct = rows("ties")
    one, same = (evaluate(confidence, correct, resamples=300, seed=3).intervals for _ in range(2))
    other = evaluate(confidence, correct, resamples=300, seed=4).intervals
    assert one == same
    assert one != other
    value = evaluate(confidence, correct)
    for name in ("auroc", "aupr_in", "aupr_out", "aurc"):
        low, high = one[name]
        assert low < getattr(value, name) < high
        assert high - low < 0.3


def test_bootstrap_interval_of_auroc_agrees_with_hanley_and_mcneil():
    rng = np.random.default_rng(0)
    correct = np.arange(600) < 400
    confidence = rng.normal(size=600) + correct
    found = evaluate(confidence, correct, resamples=1000)
    a, m, n = found.auroc, 400, 200
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    deviation = np.sqrt((a * (1 - a) + (m - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (m * n))
    low, high = found.intervals["auroc"]
    assert (high - low) / (2 * 1.96 * deviation) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([0.1, np.nan, np.nan], [True, False, True], "2 of 3 confidences are NaN"),
        ([0.1, 0.2], [True, True], r"only correct rows \(2\)"),
        ([0.1, 0.2], [False, False], r"only incorrect rows \(2\)"),
        ([], [], "no rows"),
        ([0.1, 0.2], [True], "alike"),
        ([[0.1], [0.2]], [[True], [False]], r"must be \[N\]"),
        ([0.1, 0.2], [2, 0], "must be boolean"),
    ],
)
def test_bad_input(confidence, correct, message):
    with pytest.raises(InputError, match=message):
        evaluate(confidence, correct)


def test_bad_settings():
    confidence, correct = known()
    with pytest.raises(InputError, match="choose one of: hendrycks, openood, torch-uncertainty"):
        evaluate(confidence, correct, convention="hendryks")
    with pytest.raises(InputError, match="resamples"):
        evaluate(confidence, correct, resamples=-1)
    with pytest.raises(InputError, match="level"):
        evaluate(confidence, correct, resamples=1, level=1.0)


def test_all_conventions_share_auroc():
    confidence, correct = rows("ties")
    assert len({evaluate(confidence, correct, convention=name).auroc for name in CONVENTIONS}) == 1


def test_a_coarse_ranking_keeps_counts_and_hardly_moves_metrics():
    from gradscore.metrics import ranking

    rng = np.random.default_rng(0)
    correct = rng.random(30_000) < 0.8
    p = 1 / (1 + np.exp(-(rng.normal(size=30_000) + correct)))
    fine = ranking.Ranking.of(p, correct)
    coarse = fine.coarse(500)
    assert len(coarse.values) == 500
    assert (np.diff(coarse.values) < 0).all()
    assert (coarse.positives.sum(), coarse.negatives.sum()) == (fine.positives.sum(), fine.negatives.sum())
    rows = coarse.positives + coarse.negatives
    assert rows.max() - rows.min() <= 1
    for metric in (ranking.auroc, ranking.average_precision, ranking.aurc, ranking.ece, ranking.brier):
        assert metric(coarse) == pytest.approx(metric(fine), abs=1e-3)
    assert fine.coarse(30_000) is fine


def test_intervals_of_a_coarse_ranking_are_those_of_the_fine_one(monkeypatch):
    rng = np.random.default_rng(0)
    correct = rng.random(4000) < 0.7
    p = 1 / (1 + np.exp(-(rng.normal(size=4000) + correct)))
    coarse = evaluate(p, correct, resamples=300).intervals
    monkeypatch.setattr("gradscore.metrics.evaluation.MOST_SCORES", 10_000)
    fine = evaluate(p, correct, resamples=300).intervals
    for name in fine:
        np.testing.assert_allclose(coarse[name], fine[name], atol=0.006)
