"""Calibrations of a judge: stated mix, kept order, no certainty; ONNX against Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from gradscore.metrics.evaluation import evaluate
from gradscore.verdict.learning.calibrated import FEWEST_FOR_STEPS, Calibrated, calibrated, mix_weights
from gradscore.verdict.learning.calibration import CentredIsotonic, Platt, Uncalibrated
from gradscore.verdict.learning.heads.max_softmax import MaxSoftmaxRecipe
from gradscore.verdict.learning.judge import Judgement
from tests.support.planted import extremes, rows, run

CURVES = (Platt, CentredIsotonic)


def overconfident(count, seed):
    """P(correct) whose log odds are three times too large, and one and a half too high."""
    rng = np.random.default_rng(seed)
    odds = 1.5 * rng.normal(size=count)
    return 1 / (1 + np.exp(-(3 * odds + 1.5))), rng.random(count) < 1 / (1 + np.exp(-odds))


def emitted(curve, p):
    return run(lambda emit, name: curve.emit(emit, emit("Reshape", name, np.array([-1]))), p[:, None])


def test_centred_steps_one_knot_at_a_time():
    """Isotonic regression behind the curve; each step becomes one knot at the weighted mean of its rows."""
    p, right = overconfident(400, 0)
    weight = np.random.default_rng(1).uniform(0.5, 2, 400)
    found = CentredIsotonic.fit(p, right, weight)
    x = Platt.fit(p, right, weight)(p)
    least, most = 1 / ((~right).sum() + 2), (right.sum() + 1) / (right.sum() + 2)
    steps = IsotonicRegression(y_min=least, y_max=most).fit(x, right, weight).predict(x)
    knots = [(0.0, 0.0)]
    for level in np.unique(steps):
        on = steps == level
        knots.append((np.average(x[on], weights=weight[on]), level))
    fresh = np.r_[overconfident(200, 2)[0], 0, 1]
    expected = np.interp(found.curve(fresh), *zip(*knots, (1.0, 1.0), strict=True))
    np.testing.assert_allclose(found(fresh), expected, atol=1e-9)


def test_no_two_rows_tie_and_the_order_is_kept():
    p, right = overconfident(500, 3)
    found = CentredIsotonic.fit(p, right)
    order = np.argsort(p)
    assert (np.diff(found(p)[order]) > 0).all()
    assert evaluate(found(p), right).auroc == evaluate(p, right).auroc


def test_calibration_mends_overconfidence():
    found = CentredIsotonic.fit(*overconfident(2000, 0))
    p, right = overconfident(4000, 1)
    assert evaluate(found(p), right).ece < 0.04 < 0.1 < evaluate(p, right).ece


@pytest.mark.parametrize("kind", CURVES)
def test_weights_count_as_so_many_rows(kind):
    p, right = overconfident(200, 4)
    twice = kind.fit(np.r_[p, p[:50]], np.r_[right, right[:50]])
    heavy = kind.fit(p, right, np.r_[np.full(50, 2.0), np.ones(150)])
    np.testing.assert_allclose(heavy(p), twice(p), atol=0.02)  # softened targets count rows, not weights


@pytest.mark.parametrize("kind", CURVES)
def test_onnx_gives_the_same(kind):
    found = kind.fit(*overconfident(300, 5))
    p = np.r_[overconfident(300, 6)[0], 0.0, 1.0, 1e-300, 1 - 1e-16, 1e-12, 0.5]
    np.testing.assert_allclose(emitted(found, p), found(p), rtol=0, atol=1e-9)


def test_a_steep_curve_does_not_overflow():
    curve = Platt(slope=60.0, offset=-3.0)
    p = np.array([0.0, 1e-12, 0.5, 1.0])
    np.testing.assert_allclose(curve(p), [0, 0, 1 / (1 + np.exp(3.0)), 1], atol=1e-15)
    np.testing.assert_allclose(emitted(curve, p), curve(p), atol=1e-12)


@given(st.integers(0, 2**31), st.integers(20, 120), st.sampled_from([0, 1, 2, 6]), st.floats(0.1, 30.0))
@settings(max_examples=50, deadline=None)
def test_probabilities_stay_probabilities_whatever_is_drawn(seed, count, decimals, steepness):
    """LabelledRows may tie, be certain, or lie closer together than a number can tell."""
    rng = np.random.default_rng(seed)
    odds = steepness * rng.normal(size=count)
    p = 1 / (1 + np.exp(-odds))
    p = np.round(p, decimals) if decimals else p
    right = rng.random(count) < 0.2 + 0.6 * p
    if right.all() or not right.any() or np.ptp(p) == 0:
        return
    found = CentredIsotonic.fit(p, right, rng.uniform(0.1, 5.0, count))
    fresh = np.sort(np.r_[p, rng.random(50), 0.0, 1.0, 1e-300, 1 - 1e-16])
    made = found(fresh)
    assert made.shape == fresh.shape
    assert ((made >= 0) & (made <= 1)).all()
    if found.curve.slope > 0:
        assert (np.diff(made) >= -1e-12).all()
    np.testing.assert_allclose(emitted(found, fresh), made, rtol=0, atol=1e-9)


# ---------------------------------------------------------------- the stated mix


def test_weights_make_the_mix():
    known = np.arange(100) < 70
    weight = mix_weights(known, 0.02)
    assert weight.sum() == pytest.approx(100)
    assert weight[~known].sum() == pytest.approx(2)
    for one in (np.ones(5, bool), np.zeros(5, bool)):
        np.testing.assert_array_equal(mix_weights(one, 0.3), np.ones(5))


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5])
def test_probabilities_hold_in_the_stated_mix(share):
    """P(known) averages to the share of known inputs when rows weigh as in the mix; P(right) to the accuracy."""
    given = rows(1500, 4, 100, seed=3)
    judge = MaxSoftmaxRecipe().fit(given, 0)
    rng = np.random.default_rng(0)
    odds = 1.5 * rng.normal(size=len(given)) + np.where(given.known, 1.0, -1.0)
    raw = judge(given.features)
    p_known = 1 / (1 + np.exp(-odds))
    raw = Judgement(raw.p_right, p_known, raw.p_right * p_known)
    found = calibrated(judge, raw, given, share).calibrate(raw)
    weight = mix_weights(given.known, share)
    assert np.average(found.p_known, weights=weight) == pytest.approx(1 - share, abs=0.01)
    assert np.average(found.p_correct, weights=weight) == pytest.approx((1 - share) * 0.8, abs=0.02)
    assert found.p_right[given.known].mean() == pytest.approx(0.8, abs=0.01)


def test_few_rows_get_a_curve_and_many_get_steps():
    few, many = rows(200, 0, wrong=FEWEST_FOR_STEPS - 1), rows(200, 0, wrong=FEWEST_FOR_STEPS)
    for labelled, kind in ((few, Platt), (many, CentredIsotonic)):
        judge = MaxSoftmaxRecipe().fit(labelled, 0)
        found = calibrated(judge, judge(labelled.features), labelled, 0.02)
        assert type(found.right) is kind
        assert type(found.known) is Uncalibrated  # one class


def test_what_has_the_wrong_order_is_not_turned_round():
    given = rows(300, 0)
    judge = MaxSoftmaxRecipe().fit(given, 0)
    raw = judge(given.features)
    turned = Judgement(1 - raw.p_right, raw.p_known, 1 - raw.p_correct)
    found = calibrated(judge, turned, given, 0.02)
    assert type(found.right) is type(found.correct) is Uncalibrated


# ---------------------------------------------------------------- the calibrated softmax


def test_max_softmax_is_a_curve_over_the_softmax():
    given = rows(400, 2, 30)
    judge = MaxSoftmaxRecipe().fit(given, 0)
    column = given.names.index("residual")
    x = 1 - given.features[:, column]
    curve = Platt.fit(x[given.known], given.right[given.known])
    found = judge(given.features)
    np.testing.assert_array_equal(found.p_right, curve(x))
    np.testing.assert_array_equal(found.p_known, np.ones(len(x)))
    np.testing.assert_array_equal(found.p_correct, found.p_right)


@pytest.mark.parametrize("curve", CURVES)
def test_calibrated_answers_in_onnx(curve):
    given = rows(400, 2, 30)
    judge = MaxSoftmaxRecipe().fit(given, 0)
    raw = judge(given.features)
    map_of = curve.fit(raw.p_right, given.right)
    whole = Calibrated(judge, map_of, Uncalibrated(), map_of)
    fresh = np.vstack([given.features, extremes(60, len(given.names))])

    def emit_into(emit, features):
        made = whole.emit(emit, features)
        return made.p_right, made.p_known, made.p_correct

    expected = whole(fresh)
    # At the ends of the softmax, a last bit of 1 − residual is 1e-4 of its log odds.
    actual = run(lambda emit, name: [emit("Identity", one) for one in emit_into(emit, name)], fresh)
    for one, other in zip(actual, (expected.p_right, expected.p_known, expected.p_correct), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("wrong", "lacking"),
    [(0, "a wrong prediction of a known input"), (400, "a right prediction of a known input"), (1, None)],
)
def test_what_the_softmax_lacks(wrong, lacking):
    assert MaxSoftmaxRecipe().lacks(rows(400, 1, 5, wrong=wrong)) == lacking
