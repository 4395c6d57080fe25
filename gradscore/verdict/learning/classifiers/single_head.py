"""The methods of `METHODS` as recipes: one classifier over all columns gives P(correct), and the softmax divides it in two."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradscore.errors import InputError
from gradscore.verdict.learning.classifiers import fitting
from gradscore.verdict.learning.classifiers.estimators import emit_mean
from gradscore.verdict.learning.heads.max_softmax import MaxSoftmaxRecipe, SoftmaxJudge
from gradscore.verdict.learning.judge import Answers, Judge, Judgement, Recipe
from gradscore.verdict.learning.rows import LabelledRows
from gradscore.verdict.learning.settings import Settings
from gradscore.verdict.learning.verdict_nodes import VerdictNodes

FloatArray = npt.NDArray[np.float64]

LEAST = 1e-9  # runtimes round probabilities at 1e-16; quotients of smaller ones than this would show it


@dataclass(frozen=True, eq=False)
class SingleHead(Judge):
    """P(correct) by one classifier. P(right) is the softmax's own, or P(correct) if that is more; P(known) is what remains.

    Attributes
    ----------
    fitted
        Transform, classifiers and calibration.
    softmax
        The calibrated softmax; None if the table has no residual.
    """

    fitted: fitting.Fitted
    softmax: SoftmaxJudge | None

    def __call__(self, features: FloatArray) -> Judgement:
        """Judge finite rows."""
        p = self.fitted.p_correct(features)
        right = p if self.softmax is None else np.maximum(self.softmax(features).p_right, p)
        return Judgement(right, p / np.maximum(right, LEAST), p)

    def emit(self, emit: VerdictNodes, features: str) -> Answers:
        """Write the same arithmetic as ONNX nodes."""
        mean = emit_mean(self.fitted.members, emit, self.fitted.transform.emit(emit, features))
        p = self.fitted.calibration.emit(emit, mean)
        right = p if self.softmax is None else emit("Max", self.softmax.emit(emit, features).p_right, p)
        return Answers(right, emit("Div", p, emit("Max", right, np.float64(LEAST))), p)


class SingleHeadRecipe(Recipe):
    """Fits `SingleHead` with the settings, penalty and calibration of an earlier fit to all rows."""

    def __init__(self, settings: Settings, fitted: fitting.Fitted) -> None:
        self._settings = settings
        self._fitted = fitted

    def lacks(self, rows: LabelledRows) -> str | None:
        """Return what the rows lack."""
        try:
            fitting.require_fittable(rows.features, rows.right, rows.names, self._settings)
        except InputError as error:
            return str(error)
        return None

    def fit(self, rows: LabelledRows, seed: int) -> SingleHead:
        """Fit the classifier to all rows, and the softmax's curve to the known ones."""
        del seed  # the settings have it
        found = fitting.refit(self._fitted, rows.features, rows.right, rows.names, self._settings)
        return self.around(found, rows)

    @staticmethod
    def around(fitted: fitting.Fitted, rows: LabelledRows) -> SingleHead:
        """Return the judge of a fitted classifier."""
        softmax = MaxSoftmaxRecipe()
        return SingleHead(fitted, None if softmax.lacks(rows) else softmax.fit(rows, 0))
