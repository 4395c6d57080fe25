"""Times of several tasks, measured in turn, so that what disturbs the machine disturbs all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter, sleep

import numpy as np

Task = Callable[[], object]

_REST = 0.02  # seconds in which the thread pools of the task before fall asleep
_TURN = 0.05  # seconds that a turn is worth at least
_SETTLED = 1.0  # seconds of a run that does not notice what the task before left in the caches and in memory


@dataclass(frozen=True)
class Timing:
    """Seconds of one task over several turns.

    Attributes
    ----------
    best, median
        Fastest turn and median turn, each the mean of its runs.
    spread
        Interquartile range over the median.
    turns
        Number of turns.
    """

    best: float
    median: float
    spread: float
    turns: int

    @classmethod
    def of(cls, seconds: list[float]) -> "Timing":
        """Summarise the turns of one task."""
        low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75))
        return cls(min(seconds), float(median), float((high - low) / median), len(seconds))


def interleaved(
    tasks: Mapping[str, Task], *, repeats: int, patience: float = 20.0, turn: float = _TURN, rest: float = _REST
) -> dict[str, Timing]:
    """Give all tasks `repeats` turns, one after the other, on the same terms.

    A turn begins with a `rest`, in which the threads that the task before left spinning fall asleep, and with a run that
    is not counted: it finds the caches full of the other's numbers and its memory given back. The counted runs follow
    until `turn` seconds are full, at least one; the turn's time is their mean. So a task of a few milliseconds is seen
    as a service sees it that does nothing else. A task whose runs take a second or more does without the uncounted run.

    A task that has taken more than `patience` counted seconds rests from then on, but has two turns at least.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    spent = dict.fromkeys(tasks, 0.0)
    for _ in range(max(2, repeats)):
        for name, task in tasks.items():
            if len(seconds[name]) < 2 or spent[name] < patience:
                sleep(rest)
                if not seconds[name] or seconds[name][-1] < _SETTLED:
                    task()
                taken, runs = _counted(task, turn)
                spent[name] += taken
                seconds[name].append(taken / runs)
    return {name: Timing.of(values) for name, values in seconds.items()}


def _counted(task: Task, least: float) -> tuple[float, int]:
    """Run a task until so many seconds are full; return the seconds and the number of runs."""
    runs, taken, start = 0, 0.0, perf_counter()
    while not runs or taken < least:
        task()
        runs += 1
        taken = perf_counter() - start
    return taken, runs
