"""Differences of AUROC and intervals of fractions, against scikit-learn, the bootstrap and known values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from gradscore.metrics.paired import auroc_difference, fraction_interval


def confidences(count, seed, *, ties=False, first=1.5, second=1.0):
    rng = np.random.default_rng(seed)
    positive = rng.random(count) < 0.6
    shared = rng.normal(size=count)
    made = [gain * positive + shared + rng.normal(size=count) for gain in (first, second)]
    return *(np.round(one) if ties else one for one in made), positive


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_both_areas_are_those_of_scikit_learn(seed, ties):
    first, second, positive = confidences(300, seed, ties=ties)
    found = auroc_difference(first, second, positive)
    assert found.first == pytest.approx(roc_auc_score(positive, first), abs=1e-12)
    assert found.second == pytest.approx(roc_auc_score(positive, second), abs=1e-12)
    assert (found.low + found.high) / 2 == pytest.approx(found.first - found.second, abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
@settings(max_examples=100, deadline=None)
def test_areas_of_few_rows_with_ties(found):
    first, second, positive = (np.array(one) for one in zip(*found, strict=True))
    if positive.all() or not positive.any():
        return
    difference = auroc_difference(first.astype(float), second.astype(float), positive)
    assert difference.first == pytest.approx(roc_auc_score(positive, first), abs=1e-12)
    assert difference.second == pytest.approx(roc_auc_score(positive, second), abs=1e-12)
    assert difference.low <= difference.high


@pytest.mark.parametrize("ties", [False, True])
def test_the_interval_is_that_of_the_bootstrap(ties):
    first, second, positive = confidences(400, 5, ties=ties)
    found = auroc_difference(first, second, positive)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(600):
        rows = np.r_[
            rng.choice(np.flatnonzero(positive), positive.sum()),
            rng.choice(np.flatnonzero(~positive), (~positive).sum()),
        ]
        one = auroc_difference(first[rows], second[rows], positive[rows])
        drawn.append(one.first - one.second)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.high - found.low == pytest.approx(high - low, rel=0.15)
    assert found.low == pytest.approx(low, abs=0.01)


def test_nineteen_of_twenty_intervals_hold_the_truth():
    """Of two confidences that are equally good."""
    held = 0
    for seed in range(200):
        found = auroc_difference(*confidences(200, 100 + seed, first=1.0, second=1.0))
        held += found.low <= 0 <= found.high
    assert 180 <= held <= 199


def test_a_confidence_does_not_differ_from_itself():
    first, _, positive = confidences(100, 0)
    found = auroc_difference(first, 3 * first + 1, positive)
    assert (found.low, found.high) == (0.0, 0.0)


def test_one_row_of_a_class_tells_next_to_nothing():
    found = auroc_difference(np.array([3.0, 2.0, 1.0]), np.array([1.0, 2.0, 3.0]), np.array([True, True, False]))
    assert (found.first, found.second) == (1.0, 0.0)
    assert found.low < 0.05


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),
    [  # R: prop.test(hits, rows, correct = FALSE)
        (8, 10, 0.4901625, 0.9433178),
        (0, 10, 0.0, 0.2775328),
        (10, 10, 0.7224672, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_of_a_fraction_is_wilsons(hits, rows, low, high):
    assert fraction_interval(hits, rows) == pytest.approx((low, high), abs=1e-4)


def test_without_rows_a_fraction_is_anything():
    assert fraction_interval(0, 0) == (0.0, 1.0)
