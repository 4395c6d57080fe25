"""The head that says whether a prediction is right, if the input is known: the softmax, corrected by the gradient.

A logistic regression over the log odds of the maximum softmax, hardly penalised, and over all logit scores and gradient
statistics, strongly penalised. With few rows it is the calibrated softmax; it departs from it as far as the rows prove.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradscore.verdict.learning.classifiers.noise import telling
from gradscore.verdict.learning.heads.ridge_head import RidgeHead
from gradscore.verdict.learning.rows import LabelledRows
from gradscore.verdict.learning.transforms import SMALLEST_SPREAD, SignedLog
from gradscore.verdict.learning.verdict_nodes import VerdictNodes

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

RESIDUAL = "residual"
SOFTMAX_SPREAD = 10.0  # standard deviation of the softmax's log odds: a penalty on their weight counts a hundredth
PENALTY = 0.3
LEAST = 1e-300


@dataclass(frozen=True, eq=False)
class RightHead:
    """Log odds that a prediction is right, from features [N, F].

    Attributes
    ----------
    residual
        Column of the residual.
    scale
        Factor of the softmax's log odds; 0 if they do not vary.
    scores
        Transform of logit scores and gradient statistics.
    head
        Weights: of the softmax first, then of the scores.
    """

    residual: int
    scale: float
    scores: SignedLog
    head: RidgeHead

    @classmethod
    def fit(cls, known: LabelledRows, columns: IntArray) -> "RightHead":
        """Fit to known inputs, right and wrong ones; `columns` are the logit scores and gradient statistics."""
        residual = known.names.index(RESIDUAL)
        odds = _log_odds(known.features[:, residual])
        scale = SOFTMAX_SPREAD / float(odds.std()) if odds.std() > SMALLEST_SPREAD else 0.0
        scores = SignedLog.fit(known.features, telling(columns, known.features, known.names))
        z = np.c_[scale * odds, scores(known.features)]
        return cls(residual, scale, scores, RidgeHead.fit(z, known.right, PENALTY))

    def __call__(self, features: FloatArray) -> FloatArray:
        """Return the log odds [N]."""
        return self.head(np.c_[self.scale * _log_odds(features[:, self.residual]), self.scores(features)])

    def emit(self, emit: VerdictNodes, features: str) -> str:
        """Write the same arithmetic as ONNX nodes."""
        residual = emit("Max", emit("Gather", features, np.array([self.residual]), axis=1), np.float64(LEAST))
        right = emit("Max", emit("Sub", np.float64(1.0), residual), np.float64(LEAST))
        odds = emit("Sub", emit("Log", right), emit("Log", residual))
        scaled = emit("Mul", odds, np.float64(self.scale))
        return self.head.emit(emit, emit("Concat", scaled, self.scores.emit(emit, features), axis=1))


def _log_odds(residual: FloatArray) -> FloatArray:
    """Return the log odds of the maximum softmax, from its residual, which keeps those that round to 1 apart."""
    wrong = np.maximum(residual, LEAST)
    return np.asarray(np.log(np.maximum(1.0 - wrong, LEAST)) - np.log(wrong))
