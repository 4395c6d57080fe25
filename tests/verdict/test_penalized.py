"""Penalised logistic regression against scikit-learn's solvers, and where those give up."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from gradscore.verdict.learning.classifiers.penalized import PENALTIES, PenalizedLogistic, path
from gradscore.verdict.learning.classifiers.quadratic import minimum, violations


def cases(rows=400, features=40, seed=0):
    """Standardised features driven by five factors, so that columns are strongly correlated."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(rows, 5))
    z = factors @ rng.normal(size=(5, features)) + 0.1 * rng.normal(size=(rows, features))
    correct = rng.random(rows) < 1 / (1 + np.exp(-1.5 - 2 * factors[:, 0] * (1 + 0.3 * factors[:, 1])))
    return (z - z.mean(axis=0)) / z.std(axis=0), correct


Z, RIGHT = cases()


def objective(fitted, penalty, l1_ratio, z=Z, correct=RIGHT):
    weights = np.ravel(fitted.coef_)
    margin = np.where(correct, 1, -1) * (z @ weights + fitted.intercept_[0])
    norms = l1_ratio * np.abs(weights).sum() + (1 - l1_ratio) / 2 * (weights @ weights)
    return np.logaddexp(0, -margin).mean() + penalty * norms


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("penalty", [1e-1, 1e-2, 1e-3])
def test_the_objective_is_scikit_learns(penalty, l1_ratio):
    solver = "saga" if l1_ratio else "newton-cholesky"
    settings = {"C": 1 / (penalty * len(Z)), "l1_ratio": l1_ratio, "tol": 1e-7, "max_iter": 100_000, "random_state": 0}
    oracle = LogisticRegression(solver=solver, **settings).fit(Z, RIGHT)
    ours = PenalizedLogistic(penalty, l1_ratio).fit(Z, RIGHT)
    found, expected = objective(ours, penalty, l1_ratio), objective(oracle, penalty, l1_ratio)
    assert found == pytest.approx(expected, abs=1e-6)
    assert found <= expected + 1e-8
    np.testing.assert_allclose(ours.predict_proba(Z), oracle.predict_proba(Z), atol=2e-3)


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
def test_every_penalty_of_a_path_meets_the_conditions_of_optimality(l1_ratio):
    for one in path(Z, RIGHT, PENALTIES, l1_ratio):
        p, weights = one.predict_proba(Z)[:, 1], one.coef_[0]
        slope = Z.T @ (p - RIGHT) / len(Z) + one.penalty * (1 - l1_ratio) * weights
        assert violations(weights, slope, one.penalty * l1_ratio).max() < 2e-5
        assert p.mean() == pytest.approx(RIGHT.mean(), abs=2e-5)


def test_a_path_equals_single_fits_and_leaves_out_more_with_stronger_penalties():
    fits = list(path(Z, RIGHT, PENALTIES, 1.0))
    alone = PenalizedLogistic(PENALTIES[4], 1.0).fit(Z, RIGHT)
    np.testing.assert_array_equal(alone.coef_, fits[4].coef_)
    sizes = [np.count_nonzero(one.coef_) for one in fits]
    assert sizes == sorted(sizes)
    assert sizes[0] < 5 < 30 < sizes[-1]


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
def test_more_features_than_rows_copies_and_outliers(l1_ratio):
    z, correct = cases(60, 100, seed=1)
    z = np.hstack([z, z[:, :3], 100.0 * (np.arange(60) == 7)[:, None]])
    for one in path(z, correct, PENALTIES, l1_ratio):
        p = one.predict_proba(z)[:, 1]
        slope = z.T @ (p - correct) / len(z) + one.penalty * (1 - l1_ratio) * one.coef_[0]
        assert violations(one.coef_[0], slope, one.penalty * l1_ratio).max() < 1e-4


def test_classes_that_separate_get_finite_weights():
    z = np.linspace(-1, 1, 50)[:, None]
    for penalty in (1e-1, 1e-9):
        fitted = PenalizedLogistic(penalty, 0.0).fit(z, z[:, 0] > 0)
        p = fitted.predict_proba(z)
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)
        assert np.isfinite(fitted.coef_).all()
        assert ((p[:, 1] > 0.5) == (z[:, 0] > 0)).all()


def test_it_is_an_estimator_that_scikit_learn_can_copy():
    fitted = PenalizedLogistic(1e-2, 0.5).fit(Z, RIGHT)
    copy = clone(fitted)
    assert copy.get_params() == {"penalty": 1e-2, "l1_ratio": 0.5}
    assert not hasattr(copy, "coef_")


@pytest.mark.parametrize("l1", [0.0, 1e-3, 0.1, 10.0])
def test_the_quadratic_minimum_is_that_of_a_general_solver(l1):
    """As a smooth problem with bounds: x is the difference of two positive parts."""
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(12, 8))
    hessian, slope, start = basis.T @ basis / 12, rng.normal(size=8), rng.normal(size=8)

    def value(parts):
        x = parts[:8] - parts[8:]
        inside = hessian @ (x - start) + slope
        found = 0.5 * (x - start) @ hessian @ (x - start) + slope @ (x - start) + l1 * parts.sum()
        return found, np.r_[inside + l1, -inside + l1]

    bounds = [(0, None)] * 16
    best = minimize(
        value, np.ones(16), jac=True, bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9}
    )
    x = minimum(hessian, slope, start, l1, 1e-9)
    np.testing.assert_allclose(x, best.x[:8] - best.x[8:], atol=1e-4)
    assert violations(x, hessian @ (x - start) + slope, l1).max() < 1e-8
    assert minimum(np.empty((0, 0)), np.empty(0), np.empty(0), l1, 1e-9).shape == (0,)
