"""The recipe `max-softmax`: what the classifier's own maximum softmax says, calibrated. Every other recipe must beat it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradscore.verdict.learning.calibration import Platt
from gradscore.verdict.learning.judge import Answers, Judge, Judgement, Recipe
from gradscore.verdict.learning.rows import LabelledRows
from gradscore.verdict.learning.verdict_nodes import VerdictNodes

FloatArray = npt.NDArray[np.float64]

RESIDUAL = "residual"


@dataclass(frozen=True, eq=False)
class SoftmaxJudge(Judge):
    """P(right) is a logistic curve over the log odds of the maximum softmax; P(known) is 1, for the softmax cannot tell.

    Attributes
    ----------
    column
        Index of the residual, 1 − maximum softmax.
    curve
        The curve.
    """

    column: int
    curve: Platt

    def __call__(self, features: FloatArray) -> Judgement:
        """Judge finite rows."""
        p = self.curve(1.0 - features[:, self.column])
        return Judgement(p, np.ones_like(p), p)

    def emit(self, emit: VerdictNodes, features: str) -> Answers:
        """Write the same arithmetic as ONNX nodes."""
        residual = emit("Gather", features, np.array([self.column]), axis=1)
        flat = emit("Reshape", residual, np.array([-1]))
        p = self.curve.emit(emit, emit("Sub", np.float64(1.0), flat))
        return Answers(p, emit("Add", emit("Mul", p, np.float64(0.0)), np.float64(1.0)), p)


class MaxSoftmaxRecipe(Recipe):
    """Fits `SoftmaxJudge`."""

    def lacks(self, rows: LabelledRows) -> str | None:
        """Return what the rows lack."""
        if RESIDUAL not in rows.names:
            return "the column `residual`"
        right = rows.right[rows.known]
        if not right.any():
            return "a right prediction of a known input"
        return "a wrong prediction of a known input" if right.all() else None

    def fit(self, rows: LabelledRows, seed: int) -> SoftmaxJudge:
        """Fit the curve to known inputs."""
        del seed
        column = rows.names.index(RESIDUAL)
        known = rows.take(rows.known)
        return SoftmaxJudge(column, Platt.fit(1.0 - known.features[:, column], known.right))
