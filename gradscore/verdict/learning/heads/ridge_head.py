"""One head of a verdict: a logistic regression with an L2 penalty over standardised scores."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradscore.verdict.learning.verdict_nodes import VerdictNodes

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RidgeHead:
    """Log odds z·w + b of standardised scores z [N, K]."""

    weights: FloatArray
    bias: float

    @classmethod
    def fit(cls, z: FloatArray, positive: npt.NDArray[np.bool_], penalty: float) -> "RidgeHead":
        """Minimise (mean log loss) + ½·penalty·|w|² over rows of both classes."""
        if not z.shape[1]:
            return cls(np.empty(0), float(np.log(positive.sum()) - np.log((~positive).sum())))
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - loaded for fitting only

        fitted = LogisticRegression(C=1 / (penalty * len(z)), solver="newton-cholesky", tol=1e-8).fit(z, positive)
        return cls(np.asarray(fitted.coef_[0], dtype=np.float64), float(fitted.intercept_[0]))

    @classmethod
    def fit_falling(
        cls, z: FloatArray, positive: npt.NDArray[np.bool_], penalty: float, falling: int
    ) -> "RidgeHead":  # fmt: skip
        """Minimise the same, with none of the first `falling` weights above 0."""
        from scipy.optimize import minimize  # noqa: PLC0415 - loaded for fitting only; scikit-learn brings it

        sign = np.where(positive, 1.0, -1.0)

        def objective(parameters: FloatArray) -> tuple[float, FloatArray]:
            weights, margin = parameters[:-1], sign * (z @ parameters[:-1] + parameters[-1])
            slope = -sign * sigmoid(-margin) / len(z)
            loss = float(np.logaddexp(0, -margin).mean() + penalty / 2 * weights @ weights)
            return loss, np.append(z.T @ slope + penalty * weights, slope.sum())

        bounds = [(None, 0.0)] * falling + [(None, None)] * (z.shape[1] - falling + 1)
        settings = {"maxiter": 2000, "ftol": 1e-12, "gtol": 1e-8}
        found = minimize(
            objective, np.zeros(z.shape[1] + 1), jac=True, method="L-BFGS-B", bounds=bounds, options=settings
        )
        return cls(np.asarray(found.x[:-1]), float(found.x[-1]))

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return the log odds [N]."""
        return np.asarray(z @ self.weights + self.bias)

    def emit(self, emit: VerdictNodes, z: str) -> str:
        """Write the same arithmetic as ONNX nodes."""
        return emit("Add", emit("MatMul", z, self.weights), np.float64(self.bias))

    def shifted(self, log_odds: float) -> "RidgeHead":
        """Return the head for another mix of the classes, whose log odds differ by this number."""
        return RidgeHead(self.weights, self.bias + log_odds)


def sigmoid(x: FloatArray) -> FloatArray:
    """Return 1/(1 + e^−x), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -x)))
