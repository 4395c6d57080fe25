"""Threshold rules against a search over all thresholds, and conformal rules against their guarantee."""

import numpy as np
import pytest

from gradscore.errors import InputError
from gradscore.metrics.ranking import Ranking
from gradscore.verdict.learning.thresholds import (
    THRESHOLDS,
    Balanced,
    ConformalFpr,
    ConformalRisk,
    Cost,
    MaxFpr,
    Rule,
    TargetPrecision,
    TargetRecall,
    balanced_gain,
    describe,
)


def rows(count=500, seed=0, digits=2):
    rng = np.random.default_rng(seed)
    p = np.round(rng.beta(4, 1, count), digits)
    return p, rng.random(count) < p


P, RIGHT = rows()
CANDIDATES = np.unique(P)


def accepted(threshold):
    return threshold <= P


def tpr(threshold):
    return accepted(threshold)[RIGHT].mean()


def fpr(threshold):
    return accepted(threshold)[~RIGHT].mean()


def precision(threshold):
    return RIGHT[accepted(threshold)].mean()


def cost(threshold):
    return 7.0 * (accepted(threshold) & ~RIGHT).sum() + 2.0 * (~accepted(threshold) & RIGHT).sum()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Balanced(), max(CANDIDATES, key=lambda t: (tpr(t) - fpr(t), t))),
        (TargetPrecision(0.9), min(t for t in CANDIDATES if precision(t) >= 0.9)),
        (TargetRecall(0.9), max(t for t in CANDIDATES if tpr(t) >= 0.9)),
        (MaxFpr(0.2), min(t for t in CANDIDATES if fpr(t) <= 0.2)),
        (Cost(7.0, 2.0), max(CANDIDATES, key=lambda t: (-cost(t), t))),
    ],
    ids=lambda value: describe(value)["rule"] if isinstance(value, Rule) else "",
)
def test_rules_equal_a_search_over_all_thresholds(rule, expected):
    threshold = rule.threshold(Ranking.of(P, RIGHT))
    np.testing.assert_array_equal(accepted(threshold), accepted(expected))
    assert threshold <= expected


def test_balanced_gain_is_equation_seven():
    expected = max(0.5 * tpr(t) + 0.5 * (1 - fpr(t)) for t in CANDIDATES)
    assert balanced_gain(Ranking.of(P, RIGHT)) == pytest.approx(expected, abs=1e-12)


def test_a_threshold_lies_between_neighbouring_doubles():
    low, high = 0.5, np.nextafter(0.5, 1)
    assert Balanced().threshold(Ranking.of(np.array([low, high]), np.array([False, True]))) == high


def test_a_threshold_that_accepts_everything_is_the_lowest_score():
    assert TargetRecall(0.9).threshold(Ranking.of(np.array([0.3, 0.3]), np.array([True, False]))) == 0.3


@pytest.mark.parametrize(("kind", "conditional"), [(ConformalRisk, False), (ConformalFpr, True)])
def test_conformal_risk_stays_below_its_bound_over_500_repetitions(kind, conditional):
    """Calibrate on 200 rows, measure on fresh ones: the mean risk obeys the bound and is not far below it."""
    bound, risks = (0.2, []) if conditional else (0.05, [])
    for repetition in range(500):
        p, right = rows(200, seed=1 + 2 * repetition, digits=12)
        threshold = kind(bound).threshold(Ranking.of(p, right))
        fresh, truth = rows(400, seed=2 + 2 * repetition, digits=12)
        wrong = (fresh >= threshold) & ~truth
        risks.append(wrong[~truth].mean() if conditional else wrong.mean())
    slack = 3 * np.std(risks) / np.sqrt(len(risks))
    assert np.mean(risks) <= bound + slack
    assert np.mean(risks) >= 0.85 * bound


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (TargetPrecision(0.99), r"precision 0.99 is out of reach: the best is 0.6667, with 100.0% of the correct rows"),
        (MaxFpr(0.01), "--max-fpr"),
        (ConformalRisk(0.01), "a risk of 0.01 over 3 rows is out of reach"),
        (ConformalFpr(0.01), "a risk of 0.01 over 1 incorrect rows is out of reach"),
    ],
)
def test_targets_out_of_reach(rule, message):
    with pytest.raises(InputError, match=message):
        rule.threshold(Ranking.of(np.array([0.9, 0.9, 0.9]), np.array([True, True, False])))


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, float("nan")])
def test_values_that_are_no_shares(value):
    for name in ("target-precision", "target-recall", "max-fpr", "conformal-risk", "conformal-fpr"):
        with pytest.raises(InputError, match=f"{name} must lie between 0 and 1"):
            THRESHOLDS[name](value)
    with pytest.raises(InputError, match="costs must be positive"):
        Cost(value if value < 1 else 0.0, 1.0)
