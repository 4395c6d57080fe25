"""The recipe two-heads, one row at a time by its formulas; its distances never know the row that they judge."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from gradscore.verdict.learning.heads.depths import Depths
from gradscore.verdict.learning.heads.distances import Gaussians, Neighbours, class_members
from gradscore.verdict.learning.heads.ridge_head import RidgeHead
from gradscore.verdict.learning.heads.two_heads import (
    FEWEST,
    FEWEST_RIGHT,
    PARTS,
    PENALTY,
    UNKNOWN_SHARE,
    TwoHeadsRecipe,
    cross_fitted,
    parts_of,
)
from gradscore.verdict.learning.heads.unusual import Unusual
from tests.support.planted import HEAD, NEW_NAMES, OLD_NAMES, extremes, rows, run, shuffled

GIVEN = rows()
RECIPE = TwoHeadsRecipe()


def emitted(judge, features):
    def emit_into(emit, name):
        made = judge.emit(emit, name)
        return [emit("Identity", one) for one in (made.p_right, made.p_known, made.p_correct)]

    return run(emit_into, features)


def assert_same(judge, features, atol=1e-9):
    expected = judge(features)
    parts = (expected.p_right, expected.p_known, expected.p_correct)
    for one, other in zip(emitted(judge, features), parts, strict=True):
        assert ((other >= 0) & (other <= 1)).all()
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


# ---------------------------------------------------------------- by hand


def test_the_judgement_one_row_at_a_time():
    judge = RECIPE.fit(GIVEN, 0)
    fresh = rows(20, 2, 10, seed=9).features
    found = judge(fresh)
    for row in range(0, 40, 7):
        x = fresh[row : row + 1]
        distances = (judge.unusual(judge.depths(x)) - judge.mean) / judge.std
        z = np.concatenate([distances[0], judge.logits(x)[0]])
        known = expit(z @ judge.known.weights + judge.known.bias)
        right = expit(judge.right(x)[0])
        np.testing.assert_allclose(
            [found.p_right[row], found.p_known[row], found.p_correct[row]], [right, known, right * known], rtol=1e-9
        )


def test_the_head_of_known_inputs_is_fitted_to_cross_fitted_distances():
    judge = RECIPE.fit(GIVEN, 3)
    usual = GIVEN.known & GIVEN.right
    depths = Depths.fit(GIVEN.take(usual))
    distances = cross_fitted(depths, depths(GIVEN.features), GIVEN, 3)
    fitted = usual | ~GIVEN.known
    mean, std = distances[usual].mean(axis=0), distances[usual].std(axis=0)
    z = np.c_[(distances - mean) / std, judge.logits(GIVEN.features)][fitted]
    head = RidgeHead.fit_falling(z, GIVEN.known[fitted], PENALTY, distances.shape[1])
    assert (judge.known.weights[: distances.shape[1]] <= 0).all()
    share = np.mean(~GIVEN.known[fitted])
    moved = np.log((1 - UNKNOWN_SHARE) / UNKNOWN_SHARE) - np.log((1 - share) / share)
    np.testing.assert_allclose(judge.known.weights, head.weights, rtol=1e-9)
    assert judge.known.bias == pytest.approx(head.bias + moved)


def test_a_head_without_bounds_is_the_ridge_and_with_bounds_no_direction_is_better():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(300, 6))
    positive = rng.random(300) < 1 / (1 + np.exp(-(z[:, 0] - z[:, 1] - 0.5 * z[:, 2])))
    free, plain = RidgeHead.fit_falling(z, positive, 0.01, 0), RidgeHead.fit(z, positive, 0.01)
    np.testing.assert_allclose(free.weights, plain.weights, atol=1e-5)
    bound = RidgeHead.fit_falling(z, positive, 0.01, 4)
    assert (bound.weights[:4] <= 0).all()
    assert bound.weights[0] == 0
    slope = z.T @ (1 / (1 + np.exp(-bound(z))) - positive) / 300 + 0.01 * bound.weights
    inside = bound.weights < 0
    inside[4:] = True
    np.testing.assert_allclose(slope[inside], 0, atol=1e-5)
    assert (slope[~inside] < 0).all(), "only a positive weight would lower the loss"


def test_unusual_is_each_distance_by_itself():
    usual = GIVEN.take(GIVEN.known & GIVEN.right)
    depths = Depths.fit(usual)
    scaled = depths(usual.features)
    fresh = depths(rows(30, 1, 10, seed=4).features)
    found = Unusual.fit(depths, scaled, usual.label, 0)(fresh)
    members = class_members(usual.label)
    expected = [Gaussians.fit(scaled.statistics, [group], members)(fresh.statistics) for group in depths.groups]
    for number in range(2):
        group = (np.arange(scaled.pooled[number].shape[1]),)
        expected.append(Gaussians.fit(scaled.pooled[number], group, members)(fresh.pooled[number]))
        expected.append(Neighbours.fit(scaled.directions[number])(fresh.directions[number]))
    np.testing.assert_allclose(found, np.hstack(expected), rtol=0, atol=1e-8)


# ---------------------------------------------------------------- whatever the table has


def constant(given, *patterns):
    features = given.features.copy()
    for column, name in enumerate(given.names):
        if any(pattern in name for pattern in patterns):
            features[:, column] = 0.5
    return replace(given, features=features)


CASES = {
    "everything": GIVEN,
    "old table": rows(names=OLD_NAMES),
    "no pooled layer": rows(names=NEW_NAMES[:-10]),
    "one pooled layer": rows(names=NEW_NAMES[:-4]),
    "pooled of one number": rows(names=(*OLD_NAMES, "fc.pooled.0")),
    "constant columns": constant(GIVEN, "conv.l", "fc.kurtosis", "conv.pooled.3"),
    "a constant layer": constant(GIVEN, "conv."),
    "constant statistics": constant(GIVEN, ".l", ".m", ".s", ".k"),
    "a constant softmax": constant(GIVEN, "residual", "entropy", "max_softmax"),
    "nothing varies": constant(GIVEN, ""),
    "one class": replace(GIVEN, label=np.full(len(GIVEN), 2)),
    "no labels": replace(GIVEN, label=np.full(len(GIVEN), -1)),
    "a class a row": replace(GIVEN, label=np.arange(len(GIVEN))),
    "classes that only unknown inputs have": replace(GIVEN, label=np.where(GIVEN.known, GIVEN.label % 2, 3)),
    "a rare class": replace(GIVEN, label=np.where(np.arange(len(GIVEN)) % 50 == 0, 9, 0)),
    "few rows": rows(FEWEST_RIGHT + 10, 1, FEWEST, wrong=FEWEST),
}


@pytest.mark.parametrize("case", CASES)
def test_onnx_gives_the_same(case):
    given = CASES[case]
    judge = RECIPE.fit(given, 0)
    assert_same(judge, given.features)
    assert_same(judge, extremes(60, len(given.names)))
    assert_same(judge, given.features[:1])


def test_rows_no_number_of_which_could_be_larger():
    """Scores come in single precision; a user's own columns may not."""
    judge = RECIPE.fit(GIVEN, 0)
    fresh = np.vstack([np.full((1, len(GIVEN.names)), 1e300), GIVEN.features[:3] * 1e300])
    assert_same(judge, fresh)


@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        (rows(names=HEAD), "columns: the table has no residual, or no statistics of layers"),
        (rows(100, wrong=80), f"{FEWEST_RIGHT - 20} right predictions of known inputs"),
        (rows(wrong=3), f"{FEWEST - 3} wrong predictions of known inputs"),
        (rows(kinds=1, each=1), f"{FEWEST - 1} unknown inputs"),
        (rows(kinds=0), f"{FEWEST} unknown inputs"),
        (GIVEN, None),
    ],
)
def test_it_says_what_rows_lack(given, lacking):
    assert RECIPE.lacks(given) == lacking


# ---------------------------------------------------------------- cross-fitting


def test_parts_are_dealt_evenly():
    part = parts_of(GIVEN, PARTS, 0)
    for which in (GIVEN.right, GIVEN.known & ~GIVEN.right, ~GIVEN.known):
        counts = np.bincount(part[which], minlength=PARTS)
        assert counts.max() - counts.min() <= 1
    assert (part != parts_of(GIVEN, PARTS, 1)).any()


def test_distances_of_a_part_know_none_of_its_rows():
    """However far one row is moved, the distances of the other rows in its part stay as they are, bit for bit."""
    depths = Depths.fit(GIVEN.take(GIVEN.known & GIVEN.right))
    scaled = depths(GIVEN.features)
    before = cross_fitted(depths, scaled, GIVEN, 0)
    part = parts_of(GIVEN, PARTS, 0)
    moved = int(np.flatnonzero(GIVEN.known & GIVEN.right)[7])
    features = GIVEN.features.copy()
    features[moved] *= 1e6
    after = cross_fitted(depths, depths(features), GIVEN, 0)
    own, others = part == part[moved], part != part[moved]
    own[moved] = False
    np.testing.assert_array_equal(after[own], before[own])
    assert (after[others] != before[others]).any(axis=1).mean() > 0.9


def test_rows_that_took_part_are_nearer():
    """This is what cross-fitting keeps from the head."""
    usual = GIVEN.known & GIVEN.right
    depths = Depths.fit(GIVEN.take(usual))
    scaled = depths(GIVEN.features)
    own = Unusual.fit(depths, scaled.take(usual), GIVEN.label[usual], 0)(scaled.take(usual))
    assert (own.mean(axis=0) < cross_fitted(depths, scaled, GIVEN, 0)[usual].mean(axis=0)).all()


@pytest.mark.parametrize("seed", range(3))
def test_nothing_leaks_from_shuffled_outcomes(seed):
    """Held-out rows of outcomes that nothing tells are a coin's: .5 within its interval."""
    from gradscore.verdict.learning.trials.held_out import held_out, outer_parts
    from gradscore.verdict.learning.trials.trial import compare

    given = shuffled(rows(seed=seed), seed)
    judged = held_out(RECIPE, given, seed)
    for name, one in compare(judged, given, outer_parts(given, seed)).items():
        spread = 1.96 * np.sqrt((one.right + one.others + 1) / (12 * one.right * one.others))
        assert one.auroc == pytest.approx(0.5, abs=1.4 * spread), name
    fitted = RECIPE.fit(given, seed)(given.features)
    assert roc_auc_score(given.right, fitted.p_correct) > 0.55  # on its own rows, a leak would look like this
