"""Logistic regression with L1 and L2 penalties, for a whole path of penalties from strong to weak.

The objective is (mean log loss) + λ·(r·‖w‖₁ + (1 − r)/2·‖w‖²), with a free intercept. A proximal Newton step minimises
the quadratic model of the loss plus the exact penalty (Lee, Sun and Saunders 2014, "Proximal Newton-type methods for
minimizing composite functions"). It reads only the features that are in the model or should enter it. A weaker penalty
starts from the weights of the stronger one (Friedman, Hastie and Tibshirani 2010, "Regularization paths for generalized
linear models via coordinate descent").

Features of gradients are so correlated that first-order solvers, such as liblinear, saga and lbfgs, need thousands of
steps where this one needs four.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gradscore.verdict.learning.classifiers.quadratic import minimum, violations

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

PENALTIES = tuple(float(10.0**exponent) for exponent in np.arange(-1.0, -5.5, -0.5))
TOLERANCE = 1e-9  # a step that lowers the objective by less is the last: steps converge quadratically
MOST_STEPS = 100
SMALLEST_SHARE = 1e-8  # of a step
SMALL = 1e-5  # after a step that lowers the objective by less, the curvatures are as good as the same
INNER = 0.1  # by how much a step lowers the violations of its own quadratic model
BLOCK = 1024  # rows whose products are summed at a time, in the processor's cache
JITTER = 1e-10  # of the mean curvature: keeps copies of one feature apart


@dataclass
class PenalizedLogistic:
    """Logistic regression with L1 and L2 penalties, with scikit-learn's interface.

    Attributes
    ----------
    penalty : float
        λ of the objective.
    l1_ratio : float
        Share r of the L1 penalty: 1 for the lasso, 0 for ridge.
    coef_ : float64 [1, K]
        Weights, after `fit`.
    intercept_ : float64 [1]
        Intercept, after `fit`.
    """

    penalty: float
    l1_ratio: float
    coef_: FloatArray = field(init=False, repr=False)
    intercept_: FloatArray = field(init=False, repr=False)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings, without the weights."""
        del deep
        return {"penalty": self.penalty, "l1_ratio": self.l1_ratio}

    def fit(self, z: FloatArray, correct: BoolArray) -> "PenalizedLogistic":
        """Fit to standardised features [N, K] and outcomes [N], by way of the stronger penalties."""
        stronger = [penalty for penalty in PENALTIES if penalty > self.penalty] if self.l1_ratio else []
        *_, last = path(z, correct, [*stronger, self.penalty], self.l1_ratio)
        self.coef_, self.intercept_ = last.coef_, last.intercept_
        return self

    def predict_proba(self, z: FloatArray) -> FloatArray:
        """Return the probabilities of incorrect and correct, [N, 2]."""
        from scipy.special import expit  # noqa: PLC0415 - loaded for fitting only

        margin = z @ self.coef_[0] + self.intercept_[0]
        return np.stack([expit(-margin), expit(margin)], axis=1)


def path(z: FloatArray, correct: BoolArray, penalties: Sequence[float], l1_ratio: float) -> Iterator[PenalizedLogistic]:
    """Fit once for each penalty, strongest first, to standardised features [N, K] and outcomes [N]."""
    newton = _Newton(z, correct)
    for penalty in penalties:
        newton.converge(penalty * l1_ratio, penalty * (1 - l1_ratio))
        fitted = PenalizedLogistic(penalty, l1_ratio)
        fitted.coef_, fitted.intercept_ = newton.weights[None].copy(), np.array([newton.intercept])
        yield fitted


class _Newton:
    """Proximal Newton steps, from the weights of the last penalty."""

    def __init__(self, z: FloatArray, correct: BoolArray) -> None:
        self.z = np.asfortranarray(z)  # steps pick columns
        self.correct = correct.astype(np.float64)
        self.weights = np.zeros(z.shape[1])
        share = self.correct.mean()
        self.intercept = float(np.log(share / (1 - share)))
        self.margin = np.full(len(z), self.intercept)
        self.chosen = np.empty(0, dtype=np.int64)
        self.curves, self.mixed, self.total = np.empty((0, 0)), np.empty(0), 1.0

    def converge(self, l1: float, l2: float) -> None:
        """Minimise the objective with these factors of ‖w‖₁ and ½‖w‖²."""
        gain = np.inf
        for _ in range(MOST_STEPS):
            gain = self._step(l1, l2, gain)
            if gain < TOLERANCE:
                return
        warnings.warn(f"logistic regression did not converge in {MOST_STEPS} steps", stacklevel=2)

    def _step(self, l1: float, l2: float, last_gain: float) -> float:
        """Take one step, and return by how much it lowers the objective."""
        from scipy.special import expit  # noqa: PLC0415 - loaded for fitting only

        p = expit(self.margin)
        residual = (p - self.correct) / len(p)
        slope, slope_of_intercept = self.z.T @ residual + l2 * self.weights, residual.sum()
        wrong = violations(self.weights, slope, l1)
        chosen = np.flatnonzero((self.weights != 0) | (wrong > 0))
        if last_gain > SMALL or not np.array_equal(chosen, self.chosen):
            self.chosen, (self.curves, self.mixed, self.total) = chosen, _curvatures(self.z, chosen, p)
        start, pull, hessian = self.weights[chosen], slope_of_intercept / self.total, self.curves.copy()
        hessian[np.diag_indices_from(hessian)] += l2
        tolerance = INNER * max(wrong.max(), abs(slope_of_intercept))
        step = np.zeros_like(self.weights)
        step[chosen] = minimum(hessian, slope[chosen] - self.mixed * pull, start, l1, tolerance) - start
        step_of_intercept = -pull - self.mixed @ step[chosen] / self.total
        expected = slope @ step + slope_of_intercept * step_of_intercept
        expected += l1 * (np.abs(self.weights + step).sum() - np.abs(self.weights).sum())
        return self._search(step, step_of_intercept, (l1, l2), expected)

    def _search(self, step: FloatArray, of_intercept: float, factors: tuple[float, float], expected: float) -> float:
        """Go the largest of the shares 1, ½, ¼, … of a step that lowers the objective as it should (Armijo's rule)."""
        before, share = self._objective(self.weights, self.margin, factors), 1.0
        of_margin = self.z @ step + of_intercept
        while share > SMALLEST_SHARE:
            weights, margin = self.weights + share * step, self.margin + share * of_margin
            after = self._objective(weights, margin, factors)
            if after <= before + 1e-4 * share * expected:
                self.weights, self.margin, self.intercept = weights, margin, self.intercept + share * of_intercept
                return before - after
            share /= 2
        return 0.0

    def _objective(self, weights: FloatArray, margin: FloatArray, factors: tuple[float, float]) -> float:
        loss = np.logaddexp(0.0, np.where(self.correct > 0, -margin, margin)).mean()
        return float(loss + factors[0] * np.abs(weights).sum() + factors[1] / 2 * (weights @ weights))


def _curvatures(z: FloatArray, chosen: IntArray, p: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Return the second derivatives of the mean log loss: by weights [K, K], mixed with the intercept [K], and by it.

    For any weights, the best intercept of the quadratic model is known. It is put into the first.
    """
    curvature = p * (1 - p) / len(p)
    hessian, mixed, root = np.zeros((len(chosen), len(chosen))), np.zeros(len(chosen)), np.sqrt(curvature)
    for start in range(0, len(z), BLOCK):
        rows = slice(start, start + BLOCK)
        scaled = (z[rows] if len(chosen) == z.shape[1] else z[rows, chosen]) * root[rows, None]
        hessian += scaled.T @ scaled
        mixed += scaled.T @ root[rows]
    total = float(curvature.sum())
    hessian -= np.outer(mixed, mixed) / total
    hessian[np.diag_indices_from(hessian)] += JITTER * total
    return hessian, mixed, total
