"""Averages over repetitions, as results.json holds them. The tables need nothing else."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any, Protocol

Key = tuple[int, str, str]  # table, row and fitting rows


@dataclass(frozen=True)
class Mean:
    """A mean and its standard deviation, in percent or points."""

    mean: float
    std: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mean":
        """Return the mean and the standard deviation of values."""
        return cls(fmean(values), pstdev(values))

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.std:.2f}"


class Averaged(Protocol):
    """What the tables need to know: `Results` of a run, or `Averages` of a file."""

    @property
    def rows(self) -> Collection[Key]:
        """The keys of the rows, in order."""

    @property
    def concepts(self) -> tuple[str, ...]:
        """The measured concepts."""

    def mean(self, key: Key, concept: str, metric: str) -> Mean:
        """Return the average of a metric."""


@dataclass(frozen=True)
class Averages:
    """The averages of every row, read from results.json."""

    rows: Mapping[Key, Mapping[str, Mapping[str, Mean]]]

    @classmethod
    def of(cls, whole: Mapping[str, Any]) -> "Averages":
        """Return the averages in the content of a results.json."""
        return cls(
            {
                (row["table"], row["row"], row["fitted_on"]): {
                    concept: {metric: Mean(**value) for metric, value in metrics.items()}
                    for concept, metrics in row["measures"].items()
                }
                for row in whole["rows"]
            }
        )

    @property
    def concepts(self) -> tuple[str, ...]:
        """The measured concepts."""
        return tuple(next(iter(self.rows.values())))

    def mean(self, key: Key, concept: str, metric: str) -> Mean:
        """Return the average of a metric."""
        return self.rows[key][concept][metric]
