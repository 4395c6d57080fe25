"""Timing of several tasks in turn, so that a disturbance affects all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter, sleep

import numpy as np

Task = Callable[[], object]

_REST = 0.02  # seconds until the thread pools of the previous task are asleep
_TURN = 0.05  # seconds that a turn lasts at least
_SETTLED = 1.0  # seconds of a run that is too long to be affected by the caches that the previous task left


@dataclass(frozen=True)
class Timing:
    """The times of one task over several turns.

    Attributes
    ----------
    best, median
        Seconds of the fastest and the median turn. The time of a turn is the mean of its runs.
    spread
        Interquartile range divided by the median.
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
    """Run all tasks in turn, `repeats` turns each, under the same conditions.

    A turn starts with a `rest`, in which the spinning threads of the previous task fall asleep. Then one run is not
    counted, because the caches still hold the data of the previous task. Counted runs follow for `turn` seconds, at
    least one. The time of the turn is their mean. A task of a few milliseconds is thus measured as in a service that
    does nothing else. If a run takes a second or more, the uncounted run is omitted.

    Parameters
    ----------
    tasks
        Tasks by name.
    repeats
        Turns of each task, at least two.
    patience
        Counted seconds after which a task gets no further turn, once it has had two.
    turn
        Shortest length of the counted part of a turn, in seconds.
    rest
        Pause before each turn, in seconds.
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
    """Run a task for at least `least` seconds, and return seconds and runs."""
    runs, taken, start = 0, 0.0, perf_counter()
    while not runs or taken < least:
        task()
        runs += 1
        taken = perf_counter() - start
    return taken, runs
