"""Minimum of a quadratic function with an L1 penalty: the inner problem of `penalized.py`.

Two steps take turns. scikit-learn's coordinate descent finds which coordinates are zero, but converges slowly where
columns are strongly correlated. One linear system then gives the exact minimum for the other coordinates, if no sign
changes.
"""

import warnings

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

MOST_ROUNDS = 60
EPOCHS = 100  # of coordinate descent, which cost as much as one linear system
SHARES = tuple(0.5**halvings for halvings in range(10))


def minimum(hessian: FloatArray, slope: FloatArray, start: FloatArray, l1: float, tolerance: float) -> FloatArray:
    """Return the x that minimises ½·(x − s)ᵀH(x − s) + gᵀ(x − s) + l1·‖x‖₁, where s is the start.

    Parameters
    ----------
    hessian : float64 [K, K]
        H, positive definite.
    slope : float64 [K]
        g, the gradient at the start.
    start : float64 [K]
        s, where the search begins.
    l1 : float
        Factor of the L1 norm. The solution is exact if it is 0.
    tolerance : float
        Largest violation of the conditions of optimality, in units of the gradient.
    """
    from scipy.linalg import cho_factor, cho_solve  # noqa: PLC0415 - loaded for fitting only

    pull = hessian @ start - slope
    if not l1 or not len(start):
        return np.asarray(cho_solve(cho_factor(hessian), pull)) if len(start) else start
    descent = _Descent(hessian, pull, l1, tolerance)
    x = start
    for _ in range(MOST_ROUNDS):
        x = _polished(hessian, pull, descent(x), l1)
        if violations(x, hessian @ x - pull, l1).max() <= tolerance:
            break
    return x


def violations(x: FloatArray, slope: FloatArray, l1: float) -> FloatArray:
    """Return by how much each coordinate [K] violates the conditions of optimality.

    At a minimum, the gradient [K] of the smooth part is −l1·sign(x) where x is not zero, and within ±l1 where it is.
    """
    return np.where(x != 0, np.abs(slope + l1 * np.sign(x)), np.maximum(np.abs(slope) - l1, 0.0))


class _Descent:
    """Epochs of scikit-learn's coordinate descent, for the least squares problem with the same minimum.

    With H = LLᵀ, the quadratic function is ½‖Lᵀx − L⁻¹q‖² but for a constant.
    """

    def __init__(self, hessian: FloatArray, pull: FloatArray, l1: float, gap: float) -> None:
        from scipy.linalg import cholesky, solve_triangular  # noqa: PLC0415 - loaded for fitting only
        from sklearn.linear_model import Lasso  # noqa: PLC0415

        lower = cholesky(hessian, lower=True)
        self._x, self._y = np.asfortranarray(lower.T), solve_triangular(lower, pull, lower=True)
        relative = gap / max(float(self._y @ self._y), np.finfo(np.float64).tiny)
        self._lasso = Lasso(
            alpha=l1 / len(pull),
            fit_intercept=False,
            precompute=hessian,
            copy_X=False,
            warm_start=True,
            max_iter=EPOCHS,
            tol=max(relative, 1e-14),
        )

    def __call__(self, x: FloatArray) -> FloatArray:
        self._lasso.coef_ = x.copy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged yet is expected
            self._lasso.fit(self._x, self._y)
        return np.array(self._lasso.coef_)


def _polished(hessian: FloatArray, pull: FloatArray, x: FloatArray, l1: float) -> FloatArray:
    """Move x towards the minimum for its signs. Coordinates whose sign would change become zero."""
    from scipy.linalg import solve  # noqa: PLC0415 - loaded for fitting only

    support = np.flatnonzero(x)
    if not len(support):
        return x
    signs, value = np.sign(x[support]), _value(hessian, pull, x, l1)
    best = solve(hessian[np.ix_(support, support)], pull[support] - l1 * signs, assume_a="pos")
    for share in SHARES:
        moved = x[support] + share * (best - x[support])
        candidate = np.zeros_like(x)
        candidate[support] = np.where(moved * signs > 0, moved, 0.0)
        if _value(hessian, pull, candidate, l1) <= value:
            return candidate
    return x


def _value(hessian: FloatArray, pull: FloatArray, x: FloatArray, l1: float) -> float:
    return float(0.5 * x @ (hessian @ x) - pull @ x + l1 * np.abs(x).sum())
