"""What a fitted verdict answers of each row: P(right, if known), P(known), and P(correct)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradscore.verdict.learning.rows import LabelledRows
from gradscore.verdict.learning.verdict_nodes import VerdictNodes

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Judgement:
    """The answers for N rows, each float64 [N].

    Attributes
    ----------
    p_right
        P(the prediction is right | the input is of a known class).
    p_known
        P(the input is of a known class).
    p_correct
        P(the prediction is right), an unknown input counting as wrong.
    """

    p_right: FloatArray
    p_known: FloatArray
    p_correct: FloatArray

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> "Judgement":
        """Return the answers for some of the rows."""
        return Judgement(self.p_right[rows], self.p_known[rows], self.p_correct[rows])


@dataclass(frozen=True)
class Answers:
    """Names of the graph values that hold the same three answers."""

    p_right: str
    p_known: str
    p_correct: str


class Judge(ABC):
    """A fitted map from features [N, F] to a judgement."""

    @abstractmethod
    def __call__(self, features: FloatArray) -> Judgement:
        """Judge finite rows."""

    @abstractmethod
    def emit(self, emit: VerdictNodes, features: str) -> Answers:
        """Write the same arithmetic as ONNX nodes."""


class Recipe(ABC):
    """A way to fit a judge."""

    @abstractmethod
    def lacks(self, rows: LabelledRows) -> str | None:
        """Return what these rows lack for a fit in this way, or None."""

    @abstractmethod
    def fit(self, rows: LabelledRows, seed: int) -> Judge:
        """Fit a judge to rows."""
