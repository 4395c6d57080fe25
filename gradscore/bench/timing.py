"""Times of several tasks, measured in turn, so that what disturbs the machine disturbs all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np

Task = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of one task over several runs.

    Attributes
    ----------
    best, median
        Fastest run and median run.
    spread
        Interquartile range over the median.
    runs
        Number of runs.
    """

    best: float
    median: float
    spread: float
    runs: int

    @classmethod
    def of(cls, seconds: list[float]) -> "Timing":
        """Summarise the runs of one task."""
        low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75))
        return cls(min(seconds), float(median), float((high - low) / median), len(seconds))


def interleaved(tasks: Mapping[str, Task], *, repeats: int, patience: float = 20.0) -> dict[str, Timing]:
    """Run all tasks in turn, `repeats` times; they are warm already.

    A task that has taken more than `patience` seconds rests from then on, but every task is measured twice at least.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(max(2, repeats)):
        for name, task in tasks.items():
            if len(seconds[name]) < 2 or sum(seconds[name]) < patience:
                start = perf_counter()
                task()
                seconds[name].append(perf_counter() - start)
    return {name: Timing.of(values) for name, values in seconds.items()}
