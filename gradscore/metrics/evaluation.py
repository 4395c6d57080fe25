"""Evaluation of a confidence: ranking, selective-prediction and calibration metrics.

*In* and *Out* are used as in Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution
Examples in Neural Networks" (ICLR 2017). *In* takes the correct predictions as positive. *Out* takes the incorrect ones
as positive, with negated confidence. An unknown concept counts as incorrect.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from gradscore.errors import InputError
from gradscore.metrics import ranking
from gradscore.metrics.ranking import Ranking

FloatArray = npt.NDArray[np.float64]

# Distinct scores in a bootstrap sample. The limit makes it fast and moves an interval by less than a thousandth.
MOST_SCORES = 2048


@dataclass(frozen=True)
class Convention:
    """The choices in which published numbers differ.

    AUROC and the other metrics are the same for all.

    Attributes
    ----------
    area : callable
        Area under the precision-recall curve (AUPR).
    fpr : callable
        False positive rate at 95 % recall (FPR95).
    positive : {"correct", "incorrect"}
        The class whose recall is 95 % in FPR95.
    """

    area: Callable[[Ranking], float]
    fpr: Callable[[Ranking], float]
    positive: str


CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {
        "hendrycks": Convention(ranking.average_precision, ranking.fpr_at_nearest, "correct"),
        "openood": Convention(ranking.trapezoid_precision, ranking.fpr_at_first, "incorrect"),
        "torch-uncertainty": Convention(ranking.average_precision, ranking.fpr_at_nearest, "incorrect"),
    }
)

METRICS: Mapping[str, Callable[[Ranking, Convention], float | None]] = MappingProxyType(
    {
        "auroc": lambda r, _: ranking.auroc(r),
        "aupr_in": lambda r, c: c.area(r),
        "aupr_out": lambda r, c: c.area(r.swapped()),
        "fpr95": lambda r, c: c.fpr(r if c.positive == "correct" else r.swapped()),
        "detection_accuracy": lambda r, _: ranking.detection_accuracy(r),
        "aurc": lambda r, _: ranking.aurc(r),
        "eaurc": lambda r, _: ranking.eaurc(r),
        "ece": lambda r, _: ranking.ece(r),
        "brier": lambda r, _: ranking.brier(r),
    }
)


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one confidence, each a fraction.

    `ece` and `brier` are None if the confidence is not a probability. `intervals` maps the name of a metric to its
    bootstrap interval (low, high). It is empty if no resamples were requested.
    """

    convention: str
    correct: int
    incorrect: int
    auroc: float
    aupr_in: float
    aupr_out: float
    fpr95: float
    detection_accuracy: float
    aurc: float
    eaurc: float
    ece: float | None
    brier: float | None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Fraction of correct rows."""
        return self.correct / (self.correct + self.incorrect)

    def as_dict(self) -> dict[str, Any]:
        """Return all values as plain numbers for JSON."""
        return {**asdict(self), "accuracy": self.accuracy}


def evaluate(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    *,
    convention: str = "hendrycks",
    resamples: int = 0,
    level: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Measure how well a confidence separates correct from incorrect predictions.

    AUROC and average precision equal those of scikit-learn. `CONVENTIONS` lists what each convention chooses.

    Parameters
    ----------
    confidence : float [N]
        Higher means more likely correct, on any scale. Negate an uncertainty such as the entropy.
    correct : bool [N]
        Whether each prediction is right; False for unknown concepts.
    convention : {"hendrycks", "openood", "torch-uncertainty"}
        How AUPR and FPR95 are computed.
    resamples : int
        Number of bootstrap samples for the intervals, stratified by class. 0 computes no intervals.
    level : float
        Coverage of the intervals (percentile bootstrap).
    seed : int
        Seed of the bootstrap. The same seed gives the same intervals.

    Returns
    -------
    Evaluation
        Every metric, and its interval if `resamples` is positive.

    Raises
    ------
    InputError
        The shapes differ, a confidence is NaN, one class is missing, or the convention is unknown.
    """
    chosen = CONVENTIONS.get(convention)
    if chosen is None:
        raise InputError(f"unknown convention {convention!r}; choose one of: {', '.join(CONVENTIONS)}")
    if resamples < 0 or not 0 < level < 1:
        raise InputError(f"resamples must be 0 or more and level between 0 and 1; got {resamples} and {level}")
    ranked = Ranking.of(*_checked(confidence, correct))
    values: dict[str, Any] = {name: metric(ranked, chosen) for name, metric in METRICS.items()}
    known = [name for name, value in values.items() if value is not None]
    intervals = (
        _bootstrap(ranked.coarse(MOST_SCORES), chosen, known, resamples, level, np.random.default_rng(seed))
        if resamples
        else {}
    )
    counts = int(ranked.positives.sum()), int(ranked.negatives.sum())
    return Evaluation(convention, *counts, **values, intervals=intervals)


def _bootstrap(
    ranked: Ranking, convention: Convention, names: list[str], resamples: int, level: float, rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
    drawn = (ranked.resampled(rng) for _ in range(resamples))
    table = np.array([[METRICS[name](sample, convention) for name in names] for sample in drawn])
    low, high = np.quantile(table, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(names)}


def _checked(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    scores, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct)
    if scores.ndim != 1 or right.shape != scores.shape:
        raise InputError(
            f"confidence and correct must be [N] and have the same shape; got {scores.shape} and {right.shape}"
        )
    if right.dtype != np.bool_ and not np.isin(right, (0, 1)).all():
        raise InputError(f"correct must be boolean (or 0 and 1), got values of type {right.dtype}")
    right = right.astype(np.bool_)
    if missing := int(np.isnan(scores).sum()):
        raise InputError(f"{missing} of {len(scores)} confidences are NaN; drop rows with an error before evaluating")
    if right.all() or not right.any():
        only = "no rows" if not len(right) else f"only {'correct' if right.all() else 'incorrect'} rows ({len(right)})"
        raise InputError(f"cannot evaluate {only}: both correct and incorrect predictions are needed; add more data")
    return scores, right
