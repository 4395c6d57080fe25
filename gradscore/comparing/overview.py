"""What a user wants to know first about each confidence: two questions, and what its threshold does.

A wrong prediction of a known class and an input of no known class are different things. A confidence that finds one need
not find the other.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore.comparing.cases import Cases
from gradscore.metrics.ranking import Ranking, auroc
from gradscore.verdict import Verdict

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Overview:
    """The answers of one confidence. What the rows do not define is None.

    Attributes
    ----------
    known, wrong, unknown : int
        Rows of known classes, those of them with a wrong prediction, and rows of unknown concepts.
    accuracy : float or None
        Fraction of the known rows with a right prediction.
    auroc_wrong : float or None
        AUROC of right against wrong predictions, known rows only.
    auroc_unknown : float or None
        AUROC of known rows against unknown ones, whatever the prediction.
    threshold : float or None
        The verdict's threshold.
    coverage, precision : float or None
        Fraction of all rows that the verdict accepts, and fraction of these whose prediction is right.
    """

    known: int
    wrong: int
    unknown: int
    accuracy: float | None
    auroc_wrong: float | None
    auroc_unknown: float | None
    threshold: float | None = None
    coverage: float | None = None
    precision: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return all values for JSON."""
        return asdict(self)


def overviews(cases: Cases, ranks: Mapping[str, FloatArray], verdicts: Mapping[str, Verdict]) -> dict[str, Overview]:
    """Return the overview of each confidence.

    Parameters
    ----------
    cases : Cases
        Rows whose features are all finite, from `Cases.finite`.
    ranks : mapping of str to float64 [N]
        Values of each confidence on these rows, from `confidences`.
    verdicts : mapping of str to Verdict
        Those of the confidences that have a threshold.
    """
    known = cases.group == 0
    wrong, unknown = int((known & ~cases.correct).sum()), int((~known).sum())
    count = int(known.sum())
    accuracy = (count - wrong) / count if count else None
    found = {}
    for name, values in ranks.items():
        questions = _auroc(values[known], cases.correct[known]), _auroc(values, known)
        threshold = verdicts[name].threshold if name in verdicts else None
        decided = _decided(values, cases.correct, threshold)
        found[name] = Overview(count, wrong, unknown, accuracy, *questions, threshold, *decided)
    return found


def _auroc(values: FloatArray, positive: NDArray[np.bool_]) -> float | None:
    if positive.all() or not positive.any():
        return None
    return auroc(Ranking.of(values, positive))


def _decided(
    values: FloatArray, correct: NDArray[np.bool_], threshold: float | None
) -> tuple[float | None, float | None]:
    """Return coverage and precision."""
    if threshold is None or not len(values):
        return None, None
    accepted = values >= threshold
    return float(accepted.mean()), float(correct[accepted].mean()) if accepted.any() else None
