"""How well a confidence tells right predictions from wrong ones: ranking, selective-prediction and calibration metrics.

The questions are asked as in Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution
Examples in Neural Networks" (ICLR 2017): *In* takes the correct predictions as positive, *Out* the incorrect ones, with
negated confidence. An unknown concept counts as incorrect. Everything is computed from how many correct and incorrect
predictions share each distinct confidence, so that ties need no special case and a bootstrap need not sort again.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from gradscore.errors import InputError

FloatArray = npt.NDArray[np.float64]
CountArray = npt.NDArray[np.int64]

ECE_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks"


@dataclass(frozen=True)
class Ranking:
    """Counts of positive and negative rows at each distinct score, best score first.

    Attributes
    ----------
    values : float64 [K], strictly decreasing
    positives, negatives : int64 [K]
    """

    values: FloatArray
    positives: CountArray
    negatives: CountArray

    @classmethod
    def of(cls, confidence: FloatArray, correct: npt.NDArray[np.bool_]) -> "Ranking":
        """Rank checked arrays: confidence [N] without NaN, correct [N]; correct rows are the positives."""
        values, group = np.unique(confidence, return_inverse=True)
        positives = np.bincount(group[correct], minlength=len(values))
        negatives = np.bincount(group[~correct], minlength=len(values))
        return cls(values[::-1], positives[::-1], negatives[::-1])

    def swapped(self) -> "Ranking":
        """Rank with the roles of the classes exchanged and the scores negated."""
        return Ranking(-self.values[::-1], self.negatives[::-1], self.positives[::-1])

    def resampled(self, rng: np.random.Generator) -> "Ranking":
        """Draw one bootstrap sample, stratified by class, so that neither class can vanish."""
        positives = rng.multinomial(self.positives.sum(), self.positives / self.positives.sum())
        negatives = rng.multinomial(self.negatives.sum(), self.negatives / self.negatives.sum())
        drawn = positives + negatives > 0
        return Ranking(self.values[drawn], positives[drawn], negatives[drawn])

    def recall(self) -> FloatArray:
        """Return the true positive rate at each threshold [K]."""
        return np.asarray(np.cumsum(self.positives) / self.positives.sum())

    def fallout(self) -> FloatArray:
        """Return the false positive rate at each threshold [K]."""
        return np.asarray(np.cumsum(self.negatives) / self.negatives.sum())

    def precision(self) -> FloatArray:
        """Return the precision at each threshold [K]."""
        true = np.cumsum(self.positives)
        return np.asarray(true / (true + np.cumsum(self.negatives)))


def _auroc(ranking: Ranking) -> float:
    """Chance that a positive outranks a negative, ties counting half (Mann–Whitney)."""
    below = ranking.negatives.sum() - np.cumsum(ranking.negatives)
    wins = ranking.positives @ (below + ranking.negatives / 2)
    return float(wins / ranking.positives.sum() / ranking.negatives.sum())


def _average_precision(ranking: Ranking) -> float:
    """Sum of precision times the recall gained, as sklearn.metrics.average_precision_score."""
    return float(ranking.precision() @ np.diff(ranking.recall(), prepend=0.0))


def _trapezoid_precision(ranking: Ranking) -> float:
    """Trapezoid area under the precision–recall curve, which starts at recall 0, precision 1."""
    recall, precision = np.r_[0.0, ranking.recall()], np.r_[1.0, ranking.precision()]
    return float(np.trapezoid(precision, recall))


def _fpr_at_first(ranking: Ranking, recall: float = 0.95) -> float:
    """Return the false positive rate at the first threshold whose recall reaches the target."""
    return float(ranking.fallout()[np.argmax(ranking.recall() >= recall)])


def _fpr_at_nearest(ranking: Ranking, recall: float = 0.95) -> float:
    """Return the false positive rate at the threshold whose recall is nearest the target.

    As the outlier-exposure code of Hendrycks et al. and torch-uncertainty have it: of two equally near recalls the
    higher, and of the thresholds that share a recall below 1 the lowest, which is the pessimistic one.
    """
    reached = ranking.recall()
    stop = int(np.argmax(reached >= 1.0)) + 1
    descending, fallout = reached[:stop][::-1], ranking.fallout()[:stop][::-1]
    return float(fallout[np.argmin(np.abs(descending - recall))])


def _detection_accuracy(ranking: Ranking) -> float:
    """Best mean of true positive and true negative rate over all thresholds; ½ is chance. Equation 7 of the paper."""
    return float(max(0.5, np.max(0.5 * ranking.recall() + 0.5 * (1.0 - ranking.fallout()))))


def _aurc(ranking: Ranking) -> float:
    """Mean risk over all coverages 1/N … 1 (Geifman and El-Yaniv 2017), expected over the order of tied rows."""
    tied = ranking.positives + ranking.negatives
    errors = np.cumsum(np.repeat(ranking.negatives / tied, tied))
    return float(np.mean(errors / np.arange(1, len(errors) + 1)))


def _eaurc(ranking: Ranking) -> float:
    """AURC less that of the best possible order of the same rows (exact, not the logarithmic approximation)."""
    right, wrong = int(ranking.positives.sum()), int(ranking.negatives.sum())
    errors = np.arange(1, wrong + 1)
    return _aurc(ranking) - float(np.sum(errors / (right + errors)) / (right + wrong))


def _brier(ranking: Ranking) -> float | None:
    """Mean squared distance of the confidence from the outcome; None where confidences are no probabilities."""
    if not _are_probabilities(ranking):
        return None
    squares = ranking.positives @ (1 - ranking.values) ** 2 + ranking.negatives @ ranking.values**2
    return float(squares / (ranking.positives.sum() + ranking.negatives.sum()))


def _ece(ranking: Ranking) -> float | None:
    """Return the expected calibration error over 15 equal bins, open below; None as for Brier."""
    if not _are_probabilities(ranking):
        return None
    bins = np.clip(np.ceil(ranking.values * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    gaps = ranking.positives - (ranking.positives + ranking.negatives) * ranking.values
    total = np.abs(np.bincount(bins, weights=gaps, minlength=ECE_BINS)).sum()
    return float(total / (ranking.positives.sum() + ranking.negatives.sum()))


def _are_probabilities(ranking: Ranking) -> bool:
    return bool(ranking.values[0] <= 1 and ranking.values[-1] >= 0)


@dataclass(frozen=True)
class Convention:
    """The choices that published numbers differ in; AUROC and the rest are the same for all.

    Attributes
    ----------
    area : how AUPR is integrated
    fpr : which threshold is taken for FPR95
    positive : "correct" or "incorrect", the class whose recall is 95 % in FPR95
    """

    area: Callable[[Ranking], float]
    fpr: Callable[[Ranking], float]
    positive: str


CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {
        "hendrycks": Convention(_average_precision, _fpr_at_nearest, "correct"),
        "openood": Convention(_trapezoid_precision, _fpr_at_first, "incorrect"),
        "torch-uncertainty": Convention(_average_precision, _fpr_at_nearest, "incorrect"),
    }
)

METRICS: Mapping[str, Callable[[Ranking, Convention], float | None]] = MappingProxyType(
    {
        "auroc": lambda r, _: _auroc(r),
        "aupr_in": lambda r, c: c.area(r),
        "aupr_out": lambda r, c: c.area(r.swapped()),
        "fpr95": lambda r, c: c.fpr(r if c.positive == "correct" else r.swapped()),
        "detection_accuracy": lambda r, _: _detection_accuracy(r),
        "aurc": lambda r, _: _aurc(r),
        "eaurc": lambda r, _: _eaurc(r),
        "ece": lambda r, _: _ece(r),
        "brier": lambda r, _: _brier(r),
    }
)


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one confidence, each a fraction; `ece` and `brier` are None where it is no probability.

    `intervals` maps a metric's name to its bootstrap interval (low, high); empty unless asked for.
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
        """Share of correct rows."""
        return self.correct / (self.correct + self.incorrect)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, ready for JSON."""
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

    AUROC and the average precisions equal scikit-learn's; see `CONVENTIONS` for what the conventions choose.

    Parameters
    ----------
    confidence : float [N]
        Higher is more likely correct; any scale. Negate an uncertainty such as the entropy.
    correct : bool [N]
        Whether each prediction is right; False for unknown concepts.
    convention : "hendrycks", "openood" or "torch-uncertainty"
    resamples : int
        Bootstrap samples for the intervals, stratified by class; 0 for none.
    level : float
        Coverage of the intervals (percentile bootstrap).
    seed : int
        Seed of the bootstrap; the same seed gives the same intervals.

    Raises
    ------
    InputError
        On wrong shapes, NaN confidences, one class only, or an unknown convention.
    """
    chosen = CONVENTIONS.get(convention)
    if chosen is None:
        raise InputError(f"unknown convention {convention!r}; choose one of: {', '.join(CONVENTIONS)}")
    if resamples < 0 or not 0 < level < 1:
        raise InputError(f"resamples must be 0 or more and level between 0 and 1; got {resamples} and {level}")
    ranking = Ranking.of(*_checked(confidence, correct))
    values: dict[str, Any] = {name: metric(ranking, chosen) for name, metric in METRICS.items()}
    known = [name for name, value in values.items() if value is not None]
    intervals = _bootstrap(ranking, chosen, known, resamples, level, np.random.default_rng(seed)) if resamples else {}
    counts = int(ranking.positives.sum()), int(ranking.negatives.sum())
    return Evaluation(convention, *counts, **values, intervals=intervals)


def _bootstrap(
    ranking: Ranking, convention: Convention, names: list[str], resamples: int, level: float, rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
    drawn = (ranking.resampled(rng) for _ in range(resamples))
    table = np.array([[METRICS[name](sample, convention) for name in names] for sample in drawn])
    low, high = np.quantile(table, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(names)}


def _checked(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    scores, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct)
    if scores.ndim != 1 or right.shape != scores.shape:
        raise InputError(f"confidence and correct must be [N] and alike; got {scores.shape} and {right.shape}")
    if right.dtype != np.bool_ and not np.isin(right, (0, 1)).all():
        raise InputError(f"correct must be boolean (or 0 and 1), got values of type {right.dtype}")
    right = right.astype(np.bool_)
    if missing := int(np.isnan(scores).sum()):
        raise InputError(f"{missing} of {len(scores)} confidences are NaN; drop rows with an error before evaluating")
    if right.all() or not right.any():
        only = "no rows" if not len(right) else f"only {'correct' if right.all() else 'incorrect'} rows ({len(right)})"
        raise InputError(f"cannot evaluate {only}: both correct and incorrect predictions are needed; add more data")
    return scores, right
