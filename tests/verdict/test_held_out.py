"""Rows held out from fits: each judged once, kinds of unknown inputs never both fitted and judged."""

from dataclasses import replace

import numpy as np
import pytest

from gradscore.verdict.learning.heads.max_softmax import MaxSoftmaxRecipe
from gradscore.verdict.learning.judge import Judgement, Recipe
from gradscore.verdict.learning.trials.held_out import PARTS, divides_kinds, held_out, outer_parts
from gradscore.verdict.learning.trials.trial import compare, tried
from tests.support.planted import rows


class Watching(Recipe):
    """A recipe that notes which rows it sees; the rows carry their number in their first feature."""

    def __init__(self, refuses=lambda rows: False):
        self.fits, self._refuses = [], refuses

    def lacks(self, rows):
        return "something" if self._refuses(rows) else None

    def fit(self, rows, seed):
        seen = rows.features[:, 0].astype(int)

        def judge(features):
            judged = features[:, 0].astype(int)
            self.fits.append((seen, judged))
            return Judgement(judged / 1e4, judged / 2e4, judged / 3e4)

        return judge


def numbered(*arguments, **options):
    given = rows(*arguments, **options)
    given.features[:, 0] = np.arange(len(given))
    return given


@pytest.mark.parametrize("kinds", [0, 1, 2, 4, 5, 11])
def test_every_row_is_judged_once_by_a_fit_without_it(kinds):
    given, recipe = numbered(200, kinds, 20), Watching()
    judged = held_out(recipe, given, 0)
    np.testing.assert_allclose(judged.p_right * 1e4, np.arange(len(given)), atol=1e-9)
    np.testing.assert_allclose(judged.p_known * 2e4, np.arange(len(given)), atol=1e-9)
    np.testing.assert_allclose(judged.p_correct * 3e4, np.arange(len(given)), atol=1e-9)
    assert len(recipe.fits) == PARTS
    counted = np.sort(np.concatenate([judged for _, judged in recipe.fits]))
    np.testing.assert_array_equal(counted, np.arange(len(given)))
    for seen, tested in recipe.fits:
        assert not set(seen) & set(tested)
        assert len(seen) + len(tested) == len(given)
        if kinds > 1:
            unknown = [set(given.kind[part]) - {-1} for part in (seen, tested)]
            assert not unknown[0] & unknown[1]


@pytest.mark.parametrize("kinds", [0, 1, 3, 7])
def test_right_and_wrong_rows_are_spread_evenly(kinds):
    given = rows(203, kinds, 13, wrong=37)
    part = outer_parts(given, 1)
    for which in (given.right, given.known & ~given.right):
        counts = np.bincount(part[which], minlength=PARTS)
        assert counts.max() - counts.min() <= 1
    if kinds > 1:
        assert all(len(set(part[given.kind == kind])) == 1 for kind in given.kinds)
    assert divides_kinds(given) is (kinds > 1)
    if kinds == 1:  # a single kind can only be divided by rows
        counts = np.bincount(part[~given.known], minlength=PARTS)
        assert counts.max() - counts.min() <= 1


def test_the_seed_deals_the_rows():
    given = rows(100, 3, 10)
    np.testing.assert_array_equal(outer_parts(given, 4), outer_parts(given, 4))
    assert (outer_parts(given, 4) != outer_parts(given, 5)).any()


def test_if_one_fit_would_lack_rows_there_is_no_judgement():
    given = numbered(100, 2, 10)
    assert held_out(Watching(lambda part: len(part.kinds) < 2), given, 0) is None
    assert held_out(MaxSoftmaxRecipe(), rows(100, 0, wrong=1), 0) is None
    assert held_out(MaxSoftmaxRecipe(), rows(100, 0, wrong=2), 0) is not None


# ---------------------------------------------------------------- what a trial counts


def one_part(given):
    return np.zeros(len(given), dtype=np.int64)


def test_a_trial_counts_by_hand():
    given = rows(100, 2, 25, wrong=30)
    rng = np.random.default_rng(0)
    p = rng.random(len(given))
    trial = tried(Judgement(p, p, p), given, one_part(given), 0.4)
    accepted = p >= 0.4
    assert trial.coverage[0] == accepted[:100].mean()
    assert trial.precision[0] == given.right[:100][accepted[:100]].mean()
    assert trial.unknown_accepted[0] == accepted[100:].mean()
    assert all(low <= value <= high for value, low, high in (trial.coverage, trial.precision, trial.unknown_accepted))
    assert trial.kinds == 2
    counts = {name: (one.right, one.others) for name, one in trial.comparisons.items()}
    assert counts == {"wrong": (70, 30), "unknown": (70, 50), "all": (70, 80)}
    assert trial.as_dict()["comparisons"]["all"]["others"] == 80


def test_each_question_is_answered_by_its_probability():
    given = rows(200, 2, 30)
    kinds = given.known & ~given.right, ~given.known
    p_right = np.where(kinds[0], 0.0, 1.0)
    p_correct = np.where(given.right, 1.0, 0.0)
    found = compare(Judgement(p_right, np.full(len(given), 0.5), p_correct), given, one_part(given))
    assert [one.auroc for one in found.values()] == [1.0, 1.0, 1.0]
    assert all(one.gain_low > 0 and not one.is_worse for one in found.values())
    turned = compare(Judgement(1 - p_right, p_right, 1 - p_correct), given, one_part(given))
    assert all(one.is_worse for one in turned.values())
    same = -given.features[:, given.names.index("residual")]
    level = compare(Judgement(same, same, same), given, one_part(given))
    assert all(
        one.auroc == one.max_softmax and one.gain_low == one.gain_high == 0 and not one.is_worse
        for one in level.values()
    )


def test_questions_without_rows_are_left_out():
    p = np.linspace(0, 1, 100)
    judged = Judgement(p, p, p)
    whole = np.zeros(100, dtype=np.int64)
    assert set(compare(judged, rows(100, 0), whole)) == {"wrong", "all"}
    assert set(compare(judged, rows(50, 1, 50, wrong=0), whole)) == {"unknown", "all"}
    assert not compare(judged, rows(100, 0, wrong=0), whole)


def test_confidences_of_different_fits_are_not_compared():
    """A part whose confidences all lie lower changes no area."""
    given = rows(200, 2, 30)
    part = outer_parts(given, 0)
    p = np.random.default_rng(0).random(len(given))
    moved = p - 10.0 * part
    one, other = (compare(Judgement(q, q, q), given, part) for q in (p, moved))
    assert one == other
    assert compare(Judgement(p, p, p), given, one_part(given)) != compare(
        Judgement(moved, moved, moved), given, one_part(given)
    )


def test_rows_without_baselines_are_compared_with_nothing():
    given = rows(100, 1, 20, names=("fc.l1", "entropy", "max_softmax", "residual"))
    p = np.linspace(0, 1, 120)
    for absent, expected in (("entropy", 3), ("residual", 0)):
        names = tuple(name if name != absent else "other" for name in given.names)
        found = compare(Judgement(p, p, p), replace(given, names=names), one_part(given))
        assert len(found) == expected
        assert all(one.entropy is None for one in found.values())
    assert tried(Judgement(p, p, p), given, one_part(given), 2.0).precision == [0.0, 0.0, 1.0]
