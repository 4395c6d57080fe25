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
