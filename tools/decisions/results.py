"""Measures of all repetitions, and their means over seeds. The tables and the figure need nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from statistics import fmean, pstdev
from typing import Any

from gradscore.detectors import DETECTORS
from gradscore.verdict import AUTO
from tools.decisions.confidences import CONFIDENCES, SUM
from tools.decisions.measures import UNKNOWN
from tools.decisions.repetition import Repetition

BEST = "best single detector"
SOFTMAX = "max_softmax"
DEFAULT = AUTO
DIGITS = 5  # of a fraction, in results.json


@dataclass(frozen=True)
class Mean:
    """A mean and the standard deviation over seeds, in percent or points; one seed has no deviation."""

    mean: float
    std: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mean":
        """Return the mean of fractions."""
        return cls(100 * fmean(values), 100 * pstdev(values), len(values))

    def text(self, sign: str = "") -> str:
        """Return the mean, and its deviation if there is one."""
        spread = f" ± {self.std:.1f}" if self.seeds > 1 else ""
        return f"{self.mean:{sign}.1f}{spread}"


@dataclass(frozen=True)
class Results:
    """All repetitions."""

    repetitions: Sequence[Repetition]

    @cached_property
    def by_task(self) -> Mapping[str, list[Repetition]]:
        """The repetitions of each task."""
        found: dict[str, list[Repetition]] = {}
        for one in self.repetitions:
            found.setdefault(one.about["task"], []).append(one)
        return found

    @property
    def names(self) -> list[str]:
        """The confidences that anything is known of, with the best single detector after the sum."""
        known = [name for name in CONFIDENCES if any(name in one.measures for one in self.repetitions)]
        place = known.index(SUM) + 1
        return [*known[:place], BEST, *known[place:]]

    def values(self, name: str, task: str, measure: str) -> dict[int, Any]:
        """Return a measure by seed."""
        own = self.best[task] if name == BEST else name
        found = {one.about["seed"]: one.measures.get(own, {}).get(measure) for one in self.by_task[task]}
        return {seed: value for seed, value in found.items() if value is not None}

    def mean(self, name: str, task: str, measure: str) -> Mean | None:
        """Return the mean of a measure over seeds."""
        values = self.values(name, task, measure)
        return Mean.of(list(values.values())) if values else None

    def groups(self, task: str) -> Mapping[str, str]:
        """Return the unknown groups of a task and their families."""
        about = self.by_task[task][-1].about["groups"]
        return {name: one["family"] for name, one in about.items() if one["family"] in UNKNOWN}

    def group_mean(self, name: str, task: str, group: str) -> Mean | None:
        """Return the mean over seeds of the AUROC of right predictions against one unknown group."""
        values = self.values(name, task, "groups")
        return Mean.of([one[group] for one in values.values()]) if values else None

    def over_tasks(self, name: str, measure: str) -> Mean | None:
        """Return the mean of the means of the tasks that have the measure, if none of them lacks it for this confidence."""
        own = {task: self.mean(name, task, measure) for task in self.by_task}
        found = {task: one.mean / 100 for task, one in own.items() if one is not None}
        asked = [task for task in self.by_task if self.mean(SUM, task, measure) is not None]
        return replace(Mean.of(list(found.values())), seeds=1) if found and list(found) == asked else None

    def gain(self, task: str, measure: str, over: str, *, on: str | None = None, by: str = DEFAULT) -> Mean | None:
        """Return the mean of one confidence's measure less another's (there called `on`), seed by seed."""
        own, other = self.values(by, task, measure), self.values(over, task, on or measure)
        differences = [own[seed] - other[seed] for seed in own if seed in other]
        return Mean.of(differences) if differences else None

    @cached_property
    def best(self) -> Mapping[str, str]:
        """The detector with the largest AUROC on `all` of each task: chosen on the test, so it is the strongest opponent."""
        means = {task: {name: self.mean(name, task, "all") for name in DETECTORS} for task in self.by_task}
        return {
            task: max((name for name, one in own.items() if one), key=lambda name: own[name].mean)  # type: ignore[union-attr]
            for task, own in means.items()
        }

    def as_list(self) -> list[dict[str, Any]]:
        """Return everything as plain values for JSON."""
        return [_rounded(asdict(one)) for one in self.repetitions]

    @classmethod
    def of(cls, plain: Sequence[Mapping[str, Any]]) -> "Results":
        """Return the results in a list of `as_list`."""
        return cls([Repetition(**one) for one in plain])


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return round(value, DIGITS) if isinstance(value, float) else value
