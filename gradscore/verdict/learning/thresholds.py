"""Where P(correct) is high enough to accept a prediction: one rule per class, all listed in `THRESHOLDS`.

A rule reads a ranking of P(correct) on rows whose outcome is known, and accepts a row where P(correct) reaches the
threshold. The first five rules hold on those rows themselves, and elsewhere up to chance. The conformal ones bound an
expectation for any number of rows, if these were not used in the fit and are exchangeable with what comes later: drawn
from the same source, in no particular order. A change of source ends the guarantee.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gradscore.errors import InputError
from gradscore.metrics.ranking import Ranking


@dataclass(frozen=True)
class Rule(ABC):
    """Chooses a threshold from the counts of correct and incorrect rows at each P(correct)."""

    needs_unseen_rows: ClassVar[bool] = False
    """Whether the rule holds only on rows that the verdict was not fitted on."""

    @abstractmethod
    def choose(self, ranking: Ranking) -> int:
        """Return the index of the lowest P(correct) that is accepted; InputError where none will do."""

    def threshold(self, ranking: Ranking) -> float:
        """Return the threshold: halfway between the lowest score accepted and the next below."""
        return _between(ranking, self.choose(ranking))


@dataclass(frozen=True)
class Balanced(Rule):
    """Maximise ½·TPR + ½·TNR, each class weighing half however rare it is (equation 7 of the paper)."""

    def choose(self, ranking: Ranking) -> int:
        """Return the best index, the highest score of equally good ones."""
        return int(_balanced_accuracy(ranking).argmax())


BALANCED = Balanced()


@dataclass(frozen=True)
class _Target(Rule):
    value: float

    def __post_init__(self) -> None:
        if not 0 < self.value < 1:
            raise InputError(f"{_name(self)} must lie between 0 and 1, got {self.value}")


class TargetPrecision(_Target):
    """Accept as many as possible with at least this share of them correct."""

    def choose(self, ranking: Ranking) -> int:
        """Return the last index whose precision is reached."""
        precision = ranking.precision()
        reached = np.flatnonzero(precision >= self.value)
        if not len(reached):
            raise InputError(
                f"precision {self.value} is out of reach: the best is {precision.max():.4f}, with "
                f"{ranking.recall()[precision.argmax()]:.1%} of the correct rows accepted; lower --target-precision"
            )
        return int(reached[-1])


class TargetRecall(_Target):
    """Accept as few as possible with at least this share of the correct rows among them."""

    def choose(self, ranking: Ranking) -> int:
        """Return the first index whose recall is reached."""
        return int(np.argmax(ranking.recall() >= self.value))


class MaxFpr(_Target):
    """Accept as many as possible with at most this share of the incorrect rows among them."""

    def choose(self, ranking: Ranking) -> int:
        """Return the last index whose false positive rate is allowed."""
        return _last(ranking.fallout() <= self.value, f"a false positive rate of {self.value}", "--max-fpr")


@dataclass(frozen=True)
class Cost(Rule):
    """Least cost over the rows: `wrong_accepted` for each incorrect one accepted, `right_rejected` for each correct."""

    wrong_accepted: float
    right_rejected: float

    def __post_init__(self) -> None:
        if not (0 < self.wrong_accepted < np.inf and 0 < self.right_rejected < np.inf):
            raise InputError(f"costs must be positive, got {self.wrong_accepted} (fp) and {self.right_rejected} (fn)")

    def choose(self, ranking: Ranking) -> int:
        """Return the cheapest index; accepting nothing is no choice, since no prediction would be of use."""
        missed = ranking.positives.sum() - np.cumsum(ranking.positives)
        return int(np.argmin(self.wrong_accepted * np.cumsum(ranking.negatives) + self.right_rejected * missed))


class ConformalRisk(_Target):
    """Bound the chance that a row is incorrect and accepted: conformal risk control (Angelopoulos et al. 2022)."""

    needs_unseen_rows = True

    def choose(self, ranking: Ranking) -> int:
        """Return the last index where (accepted incorrect rows + 1)/(rows + 1) is at most the bound."""
        rows = int(ranking.positives.sum() + ranking.negatives.sum())
        bound = (np.cumsum(ranking.negatives) + 1) / (rows + 1)
        return _last(bound <= self.value, f"a risk of {self.value} over {rows} rows", "--max-risk")


class ConformalFpr(_Target):
    """Bound the chance that an incorrect row is accepted: the same control over the incorrect rows alone."""

    needs_unseen_rows = True

    def choose(self, ranking: Ranking) -> int:
        """Return the last index where (accepted incorrect rows + 1)/(incorrect rows + 1) is at most the bound."""
        wrong = int(ranking.negatives.sum())
        bound = (np.cumsum(ranking.negatives) + 1) / (wrong + 1)
        return _last(bound <= self.value, f"a risk of {self.value} over {wrong} incorrect rows", "--max-fpr-risk")


THRESHOLDS: Mapping[str, type[Rule]] = MappingProxyType(
    {
        "balanced": Balanced,
        "target-precision": TargetPrecision,
        "target-recall": TargetRecall,
        "max-fpr": MaxFpr,
        "cost": Cost,
        "conformal-risk": ConformalRisk,
        "conformal-fpr": ConformalFpr,
    }
)


def balanced_gain(ranking: Ranking) -> float:
    """Return the largest ½·TPR + ½·TNR that a threshold reaches."""
    return float(_balanced_accuracy(ranking).max())


def describe(rule: Rule) -> dict[str, float | str]:
    """Return the rule's name and settings, ready for JSON."""
    return {"rule": _name(rule), **vars(rule)}


def _balanced_accuracy(ranking: Ranking) -> npt.NDArray[np.float64]:
    return np.asarray(0.5 * ranking.recall() + 0.5 * (1.0 - ranking.fallout()))


def _last(allowed: npt.NDArray[np.bool_], what: str, flag: str) -> int:
    """Return the last index of a run of allowed ones that starts at the highest score."""
    if not allowed[0]:
        raise InputError(
            f"{what} is out of reach: accepting even the highest P(correct) alone exceeds it. Raise {flag}, or give "
            "more rows"
        )
    return int(np.argmin(allowed)) - 1 if not allowed.all() else len(allowed) - 1


def _between(ranking: Ranking, index: int) -> float:
    if index + 1 == len(ranking.values):
        return float(ranking.values[index])
    upper, lower = float(ranking.values[index]), float(ranking.values[index + 1])
    halfway = lower + (upper - lower) / 2
    return halfway if halfway > lower else upper


def _name(rule: Rule) -> str:
    return next((name for name, kind in THRESHOLDS.items() if type(rule) is kind), type(rule).__name__)
