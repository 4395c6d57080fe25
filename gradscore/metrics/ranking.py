"""Rankings: counts of correct and incorrect predictions at each distinct confidence, and the metrics of them.

With counts, ties need no special case, and a bootstrap sample needs no new sorting.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
CountArray = npt.NDArray[np.int64]

EXACT_TERMS = 64  # harmonic numbers below this index are summed exactly
ECE_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks"


@dataclass(frozen=True)
class Ranking:
    """Counts of positive and negative rows at each distinct score, best score first.

    Attributes
    ----------
    values : float64 [K]
        Distinct scores, strictly decreasing.
    positives, negatives : int64 [K]
        Number of rows of each class at each score.
    """

    values: FloatArray
    positives: CountArray
    negatives: CountArray

    @classmethod
    def of(cls, confidence: FloatArray, correct: npt.NDArray[np.bool_]) -> "Ranking":
        """Rank checked arrays: confidence [N] without NaN, and correct [N]. Correct rows are the positives."""
        values, group = np.unique(confidence, return_inverse=True)
        positives = np.bincount(group[correct], minlength=len(values))
        negatives = np.bincount(group[~correct], minlength=len(values))
        return cls(values[::-1], positives[::-1], negatives[::-1])

    def swapped(self) -> "Ranking":
        """Return the ranking with the classes exchanged and the scores negated."""
        return Ranking(-self.values[::-1], self.negatives[::-1], self.positives[::-1])

    def negated(self) -> "Ranking":
        """Return the ranking with the scores negated."""
        return Ranking(-self.values[::-1], self.positives[::-1], self.negatives[::-1])

    def resampled(self, rng: np.random.Generator) -> "Ranking":
        """Draw one bootstrap sample, stratified by class so that neither class can be empty."""
        positives = rng.multinomial(self.positives.sum(), self.positives / self.positives.sum())
        negatives = rng.multinomial(self.negatives.sum(), self.negatives / self.negatives.sum())
        drawn = positives + negatives > 0
        return Ranking(self.values[drawn], positives[drawn], negatives[drawn])

    def coarse(self, limit: int) -> "Ranking":
        """Merge neighbouring scores into at most `limit` groups of about equal size.

        Each group has its mean score.
        """
        if len(self.values) <= limit:
            return self
        rows = self.positives + self.negatives
        place = (np.cumsum(rows) - 1) * limit // rows.sum()
        starts = np.flatnonzero(np.diff(place, prepend=-1))
        positives, negatives = (np.add.reduceat(part, starts) for part in (self.positives, self.negatives))
        return Ranking(np.add.reduceat(self.values * rows, starts) / (positives + negatives), positives, negatives)

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


def auroc(ranking: Ranking) -> float:
    """Return the probability that a positive outranks a negative, with ties counted half (Mann–Whitney)."""
    below = ranking.negatives.sum() - np.cumsum(ranking.negatives)
    wins = ranking.positives @ (below + ranking.negatives / 2)
    return float(wins / ranking.positives.sum() / ranking.negatives.sum())


def average_precision(ranking: Ranking) -> float:
    """Return the sum of precision times gain in recall, as `sklearn.metrics.average_precision_score` does."""
    return float(ranking.precision() @ np.diff(ranking.recall(), prepend=0.0))


def trapezoid_precision(ranking: Ranking) -> float:
    """Return the trapezoidal area under the precision–recall curve, which starts at recall 0, precision 1."""
    recall, precision = np.r_[0.0, ranking.recall()], np.r_[1.0, ranking.precision()]
    return float(np.trapezoid(precision, recall))


def fpr_at_first(ranking: Ranking, recall: float = 0.95) -> float:
    """Return the false positive rate at the first threshold whose recall reaches the target."""
    return float(ranking.fallout()[np.argmax(ranking.recall() >= recall)])


def fpr_at_nearest(ranking: Ranking, recall: float = 0.95) -> float:
    """Return the false positive rate at the threshold whose recall is nearest to the target.

    This follows the outlier-exposure code of Hendrycks et al. and torch-uncertainty. Of two equally near recalls, it
    takes the higher one. Of thresholds with the same recall below 1, it takes the lowest, which is the pessimistic one.
    """
    reached = ranking.recall()
    stop = int(np.argmax(reached >= 1.0)) + 1
    descending, fallout = reached[:stop][::-1], ranking.fallout()[:stop][::-1]
    return float(fallout[np.argmin(np.abs(descending - recall))])


def detection_accuracy(ranking: Ranking) -> float:
    """Return the best mean of true positive and true negative rate over all thresholds.

    This is equation 7 of the paper. ½ is chance.
    """
    return float(max(0.5, np.max(0.5 * ranking.recall() + 0.5 * (1.0 - ranking.fallout()))))


def aurc(ranking: Ranking) -> float:
    """Return the area under the risk–coverage curve: the mean risk over all coverages 1/N … 1.

    The source is Geifman and El-Yaniv (2017). Tied rows contribute the expectation over their order. Take n tied rows
    with a fraction r of errors, after c rows with e errors. The j-th of them adds the risk (e + j·r)/(c + j). These
    sum to r·n + (e − r·c)·(H(c + n) − H(c)), where H are harmonic numbers.
    """
    tied = ranking.positives + ranking.negatives
    share, rows = ranking.negatives / tied, np.cumsum(tied)
    before, errors = rows - tied, np.cumsum(ranking.negatives) - ranking.negatives
    sums = share * tied + (errors - share * before) * (_harmonic(rows) - _harmonic(before))
    return float(sums.sum() / rows[-1])


def eaurc(ranking: Ranking) -> float:
    """Return AURC minus the exact AURC of the best possible order of the rows."""
    right, wrong = int(ranking.positives.sum()), int(ranking.negatives.sum())
    before, after = _harmonic(np.array([right, right + wrong]))
    return aurc(ranking) - float(wrong - right * (after - before)) / (right + wrong)


def brier(ranking: Ranking) -> float | None:
    """Return the mean squared difference of confidence and outcome, or None without probabilities."""
    if not _are_probabilities(ranking):
        return None
    squares = ranking.positives @ (1 - ranking.values) ** 2 + ranking.negatives @ ranking.values**2
    return float(squares / (ranking.positives.sum() + ranking.negatives.sum()))


def ece(ranking: Ranking) -> float | None:
    """Return the expected calibration error over 15 equal bins, or None without probabilities.

    A bin includes its upper bound and excludes its lower one.
    """
    if not _are_probabilities(ranking):
        return None
    bins = np.clip(np.ceil(ranking.values * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    gaps = ranking.positives - (ranking.positives + ranking.negatives) * ranking.values
    total = np.abs(np.bincount(bins, weights=gaps, minlength=ECE_BINS)).sum()
    return float(total / (ranking.positives.sum() + ranking.negatives.sum()))


def _harmonic(n: CountArray) -> FloatArray:
    """Return the harmonic numbers 1 + 1/2 + … + 1/n.

    They are exact below n = 64. From there on, the Euler–Maclaurin series gives them to 1e-13.
    """
    few = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, EXACT_TERMS))])
    x = np.maximum(n, EXACT_TERMS).astype(np.float64)
    series = np.log(x) + np.euler_gamma + 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4)
    return np.asarray(np.where(n < EXACT_TERMS, few[np.minimum(n, EXACT_TERMS - 1)], series))


def _are_probabilities(ranking: Ranking) -> bool:
    return bool(ranking.values[0] <= 1 and ranking.values[-1] >= 0)
