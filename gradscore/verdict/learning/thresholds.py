"""Decision thresholds: how high P(correct) must be to accept a prediction.

There is one rule per class in `THRESHOLDS`. A rule reads a ranking of P(correct) on rows with a known outcome. A row
is accepted if its P(correct) reaches the threshold. The first five rules hold on those rows, and on others only up to
chance. The conformal rules bound an expectation for any number of rows. They require rows that were not used in the
fit and that are exchangeable with later rows: drawn from the same source, in no particular order. A change of source
ends the guarantee.
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
        """Return the index of the lowest accepted P(correct).

        Raises
        ------
        InputError
            No threshold satisfies the rule.
        """

    def threshold(self, ranking: Ranking) -> float:
        """Return the threshold: halfway between the lowest accepted score and the next lower one."""
        return _between(ranking, self.choose(ranking))


@dataclass(frozen=True)
class Balanced(Rule):
    """Maximise ½·TPR + ½·TNR (equation 7 of the paper).

    Each class has the same weight, however rare it is.
    """

    def choose(self, ranking: Ranking) -> int:
        """Return the best index, and of equally good ones the one with the highest score."""
        return int(_balanced_accuracy(ranking).argmax())


BALANCED = Balanced()


@dataclass(frozen=True)
class _Target(Rule):
    value: float

    def __post_init__(self) -> None:
        if not 0 < self.value < 1:
            raise InputError(f"{_name(self)} must lie between 0 and 1, got {self.value}")


class TargetPrecision(_Target):
    """Accept as many rows as possible, with at least this fraction of them correct."""

    def choose(self, ranking: Ranking) -> int:
        """Return the last index with sufficient precision."""
        precision = ranking.precision()
        reached = np.flatnonzero(precision >= self.value)
        if not len(reached):
            raise InputError(
                f"precision {self.value} is out of reach: the best is {precision.max():.4f}, with "
                f"{ranking.recall()[precision.argmax()]:.1%} of the correct rows accepted; lower --target-precision"
            )
        return int(reached[-1])


class TargetRecall(_Target):
    """Accept as few rows as possible, but at least this fraction of the correct ones."""

    def choose(self, ranking: Ranking) -> int:
        """Return the first index with sufficient recall."""
        return int(np.argmax(ranking.recall() >= self.value))


class MaxFpr(_Target):
    """Accept as many rows as possible, but at most this fraction of the incorrect ones."""

    def choose(self, ranking: Ranking) -> int:
        """Return the last index whose false positive rate is allowed."""
        return _last(ranking.fallout() <= self.value, f"a false positive rate of {self.value}", "--max-fpr")


@dataclass(frozen=True)
class Cost(Rule):
    """Minimise the cost: `wrong_accepted` per incorrect row accepted plus `right_rejected` per correct row rejected."""

    wrong_accepted: float
    right_rejected: float

    def __post_init__(self) -> None:
        if not (0 < self.wrong_accepted < np.inf and 0 < self.right_rejected < np.inf):
            raise InputError(f"costs must be positive, got {self.wrong_accepted} (fp) and {self.right_rejected} (fn)")

    def choose(self, ranking: Ranking) -> int:
        """Return the index of least cost.

        At least one row is accepted, because rejecting all would be useless.
        """
        missed = ranking.positives.sum() - np.cumsum(ranking.positives)
        return int(np.argmin(self.wrong_accepted * np.cumsum(ranking.negatives) + self.right_rejected * missed))


class ConformalRisk(_Target):
    """Bound the probability that a row is incorrect and accepted, by conformal risk control.

    The source is Angelopoulos et al. (2022).
    """

    needs_unseen_rows = True

    def choose(self, ranking: Ranking) -> int:
        """Return the last index with (accepted incorrect rows + 1)/(rows + 1) at most the bound."""
        rows = int(ranking.positives.sum() + ranking.negatives.sum())
        bound = (np.cumsum(ranking.negatives) + 1) / (rows + 1)
        return _last(bound <= self.value, f"a risk of {self.value} over {rows} rows", "--max-risk")


class ConformalFpr(_Target):
    """Bound the probability that an incorrect row is accepted, by conformal risk control on incorrect rows."""

    needs_unseen_rows = True

    def choose(self, ranking: Ranking) -> int:
        """Return the last index with (accepted incorrect + 1)/(all incorrect + 1) at most the bound."""
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
    """Return the rule's name and settings for JSON."""
    return {"rule": _name(rule), **vars(rule)}


def _balanced_accuracy(ranking: Ranking) -> npt.NDArray[np.float64]:
    return np.asarray(0.5 * ranking.recall() + 0.5 * (1.0 - ranking.fallout()))


def _last(allowed: npt.NDArray[np.bool_], what: str, flag: str) -> int:
    """Return the last index of the unbroken run of allowed indices from the highest score on."""
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
