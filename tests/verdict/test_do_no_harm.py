"""A verdict is compared with maximum softmax before it is saved; what is not better is not chosen, or says so."""

import re
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from gradscore.errors import InputError
from gradscore.verdict import AUTO, RECIPES, Verdict
from gradscore.verdict.learning.trials.recipes import FALLBACK
from tests.support.planted import HEAD, OLD_NAMES, rows, useless

TWO = "two-heads"


def fitted(given, method=AUTO, **settings):
    return Verdict.fit(
        given.features, given.right, feature_names=given.names, model_fingerprint="ab" * 32, kind=given.kind,
        label=given.label, method=method, **settings,
    )  # fmt: skip


def notes(verdict):
    return "\n".join(verdict.summary["notes"])


def harmful(given, seed=5):
    """Return the rows with features that mislead: half of the unknown kinds are far from known inputs, half too near."""
    rng = np.random.default_rng(seed)
    features = given.features.copy()
    spread = np.where(given.known, 1.0, np.where(given.kind % 2 == 0, 4.0, 0.05))
    for column, name in enumerate(given.names):
        if name not in HEAD:
            features[:, column] = np.exp(spread * rng.normal(size=len(given)))
    return replace(given, features=features)


def test_what_helps_is_chosen_and_helps():
    given = rows()
    verdict = fitted(given)
    assert verdict.method == TWO
    trial = verdict.summary["trial"]
    assert trial["comparisons"]["all"]["gain_low"] > 0
    assert not notes(verdict)
    counted = roc_auc_score(given.right, verdict.apply(given.features))
    assert counted > trial["comparisons"]["all"]["max_softmax"] + 0.03


@pytest.mark.parametrize("seed", range(3))
def test_useless_features_leave_maximum_softmax(seed):
    verdict = fitted(useless(rows(seed=seed, far=0.0), seed))
    assert verdict.method == FALLBACK
    assert "two-heads is not better than maximum softmax on held-out rows" in notes(verdict)
    assert "WORSE" not in notes(verdict)


def test_a_method_that_is_worse_is_saved_with_a_warning():
    """Each wrong input looks like the right ones of the fit, and the other way round, but for the softmax."""
    given = useless(rows(600, 0, wrong=300, noise=60))
    verdict = fitted(given, "glm")
    one = verdict.summary["trial"]["comparisons"]["wrong"]
    assert one["gain_high"] < 0
    assert "WORSE than maximum softmax on held-out rows (wrong, all): use --method auto" in notes(verdict)
    assert fitted(given).method == FALLBACK


def test_a_kind_that_looks_too_usual_does_not_teach_that_the_usual_is_unknown():
    """One kind is far from known inputs, the other one nearer than they are. A fit to the second must not harm on the first."""
    given = harmful(rows(kinds=2, each=100))
    trial = fitted(given, TWO).summary["trial"]["comparisons"]
    assert all(one["gain_high"] > 0 for one in trial.values())
    assert fitted(given).method == (TWO if trial["all"]["gain_low"] > 0 else FALLBACK)


def test_ten_wrong_rows_say_how_many_more_are_needed():
    verdict = fitted(rows(400, 4, wrong=10))
    assert "only 10 wrong among known inputs: 40 more would tell" in notes(verdict)
    assert verdict.summary["trial"] is not None


@pytest.mark.parametrize("wrong", [1, 2, 3, 4])
def test_too_few_wrong_rows_for_two_heads(wrong):
    verdict = fitted(rows(200, 3, wrong=wrong))
    assert verdict.method == FALLBACK
    assert f"two-heads lacks {5 - wrong} wrong predictions of known inputs" in notes(verdict)
    assert (verdict.summary["trial"] is None) == (wrong == 1)
    assert ("too few rows for a trial" in notes(verdict)) == (wrong == 1)


def test_a_few_wrong_rows_cannot_be_held_out_from_two_heads():
    verdict = fitted(rows(200, 3, wrong=5))
    assert verdict.method == FALLBACK
    assert "two-heads cannot be tried on held-out rows: there are too few" in notes(verdict)


@pytest.mark.parametrize("method", [AUTO, *RECIPES])
@pytest.mark.parametrize("kinds", [0, 3])
def test_without_wrong_rows_it_says_what_is_missing(method, kinds):
    given = rows(100, kinds, wrong=0)
    with pytest.raises(InputError, match=r"cannot be fitted: the \d+ rows lack .*wrong prediction") as caught:
        fitted(given, method)
    assert "Score more inputs" in str(caught.value)


def test_without_right_rows_it_says_what_is_missing():
    with pytest.raises(InputError, match="lack a right prediction of a known input"):
        fitted(rows(50, 2, wrong=50))


def test_unknown_rows_alone_cannot_be_fitted():
    given = rows(50, 2).take(np.arange(60, 100))
    with pytest.raises(InputError, match="lack a right prediction of a known input"):
        fitted(given)


def test_rows_that_are_not_finite_are_counted_in_the_error():
    given = rows(60, 0, wrong=4)
    features = given.features.copy()
    features[~given.right, 0] = np.nan
    with pytest.raises(InputError, match=r"the 56 rows lack a wrong .*\(4 more rows have NaN or Inf"):
        fitted(replace(given, features=features))


def test_without_unknown_rows_maximum_softmax_remains_and_says_why():
    verdict = fitted(rows(400, 0))
    assert verdict.method == FALLBACK
    assert "two-heads lacks 5 unknown inputs" in notes(verdict)
    assert set(verdict.summary["trial"]["comparisons"]) == {"wrong", "all"}
    assert verdict.summary["trial"]["unknown_accepted"] is None


def test_one_kind_of_unknown_input_proves_nothing_of_others():
    verdict = fitted(rows(400, 1, 80))
    assert "one kind of unknown input: nothing shows what this verdict says of other kinds" in notes(verdict)
    assert verdict.summary["trial"]["kinds"] == 1


@pytest.mark.parametrize("label", [-1, 0])
def test_one_class_or_no_labels_are_no_obstacle(label):
    given = rows()
    assert fitted(replace(given, label=np.full(len(given), label))).method in RECIPES


def test_tables_of_old_versions_are_no_obstacle():
    assert fitted(rows(names=OLD_NAMES)).method == TWO
    verdict = fitted(rows(names=HEAD))
    assert verdict.method == FALLBACK
    assert "two-heads lacks columns: the table has no residual, or no statistics of layers" in notes(verdict)


def test_the_named_recipe_is_fitted_even_if_another_would_be_chosen():
    given = useless(rows(far=0.0))
    assert fitted(given, TWO).method == TWO
    with pytest.raises(InputError, match="two-heads cannot be fitted: the 400 rows lack 5 unknown inputs"):
        fitted(rows(400, 0), TWO)


@pytest.mark.parametrize("method", ["ridge", "threshold"])
def test_single_classifiers_are_tried_too(method):
    verdict = fitted(rows(200, 3), method)
    assert set(verdict.summary["trial"]["comparisons"]) == {"wrong", "unknown", "all"}
    without = fitted(rows(200, 3), method, folds=0)
    assert without.summary["trial"] is None
    assert "no folds for a trial on held-out rows" in notes(without)


def test_a_calibrated_classifier_is_tried_with_its_calibration():
    """The threshold belongs to calibrated probabilities."""
    given = rows(300, 3, wrong=100)
    plain, platt = (fitted(given, "glm", calibration=name).summary["trial"] for name in ("none", "platt"))
    for part in ("coverage", "unknown_accepted"):
        assert platt[part][0] == pytest.approx(plain[part][0], abs=0.06)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"select": ["fc.*"]}, "chooses select by itself"),
        ({"transform": "quantile", "calibration": "platt"}, "chooses transform and calibration by itself"),
        ({"ensemble": 3}, "chooses ensemble by itself"),
        ({"unknown_share": 0.0}, "unknown_share must lie between 0 and 1"),
        ({"unknown_share": 1.5}, "unknown_share must lie between 0 and 1"),
        ({"method": "guess"}, "unknown method 'guess'; choose one of: auto, two-heads, max-softmax, threshold"),
    ],
)
def test_settings_that_nothing_heeds_are_refused(settings, message):
    with pytest.raises(InputError, match=re.escape(message)):
        fitted(rows(60, 1), **settings)


def test_kinds_and_labels_are_checked():
    given = rows(60, 1)
    with pytest.raises(InputError, match="kind must be int"):
        fitted(replace(given, kind=given.kind.astype(float)))
    with pytest.raises(InputError, match=r"label must be int \[100\]"):
        fitted(replace(given, label=given.label[:-1]))
    with pytest.raises(InputError, match=r"40 unknown inputs .* are marked as correct"):
        fitted(replace(given, right=np.ones(100, bool)))


def test_more_unknown_inputs_in_the_mix_make_all_less_likely_known():
    given = rows(400, 4, 50, far=0.5)
    few, many = (fitted(given, TWO, unknown_share=share).answers(given.features) for share in (0.02, 0.3))
    assert many.p_known.mean() < few.p_known.mean() - 0.01
    assert many.p_correct.mean() < few.p_correct.mean() - 0.01
