"""Benchmark of every kernel on every back end against the machine's limit, on one core."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import gradscore_kernels as kernels
import numpy as np
from numpy.typing import NDArray

from gradscore.bench.kernel_cases import CASES, KernelCase
from gradscore.bench.timing import Task, Timing, interleaved
from gradscore.errors import InputError

LIMIT = "limit"
SUM = "numpy sum alone"
SCIPY = "numpy + scipy"  # the obvious implementation, measured for kernels that take the gradient itself


@dataclass(frozen=True)
class KernelRow:
    """The measurement of one kernel call on one back end.

    Attributes
    ----------
    rate
        Work divided by the time of the fastest turn, in `unit`.
    share
        The rate divided by the rate of the limit, both from their fastest turns.
    """

    case: str
    kernel: str
    backend: str
    timing: Timing
    rate: float
    unit: str
    limit: str
    share: float


def measure_kernels(
    *, backends: Sequence[str] | None = None, names: Sequence[str] | None = None, repeats: int = 15
) -> list[KernelRow]:
    """Measure kernels on one core.

    The back ends and the limit of a case run in turn.

    Raises
    ------
    InputError
        A case does not exist, or a back end is not available.
    """
    chosen = _chosen("case", names, CASES)
    here = _chosen("back end", backends, [name for name in kernels.available_backends() if name != "reference"])
    with import_module("threadpoolctl").threadpool_limits(1):  # comes with scikit-learn; the limits are BLAS calls
        return [row for name in chosen for row in _measure(name, CASES[name], here, repeats)]


def _measure(name: str, case: KernelCase, backends: Sequence[str], repeats: int) -> list[KernelRow]:
    arrays, limit = case.arrays(), case.limit
    tasks: dict[str, Task] = {LIMIT: limit.task}
    for backend in backends:
        tasks[backend] = lambda backend=backend: case.call(arrays, backend)  # type: ignore[misc]  # a default binds the loop's value
    if case.kernel == "direct_moments":
        tasks[SUM] = arrays[0].sum
        tasks[SCIPY] = lambda: scipy_statistics(arrays[0])
    for task in tasks.values():
        task()
    timings = interleaved(tasks, repeats=repeats)
    best = limit.work / timings.pop(LIMIT).best
    return [
        KernelRow(
            name,
            case.kernel,
            backend,
            timing,
            case.work / timing.best,
            limit.unit,
            limit.name,
            case.work / timing.best / best,
        )
        for backend, timing in timings.items()
    ]


def scipy_statistics(g: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the eight statistics of each row with one NumPy or SciPy call each."""
    from scipy import stats  # noqa: PLC0415 - heavy, and needed only here

    return np.array(
        [
            [
                np.abs(row).sum(),
                np.linalg.norm(row),
                row.min(),
                row.max(),
                row.mean(),
                row.std(),
                stats.skew(row),
                stats.kurtosis(row),
            ]
            for row in g
        ]
    )


def _chosen(what: str, wanted: Sequence[str] | None, there: Sequence[str] | dict[str, KernelCase]) -> list[str]:
    missing = [name for name in wanted or [] if name not in there]
    if missing:
        raise InputError(f"unknown {what} {missing[0]!r}: choose from {', '.join(there)}")
    return list(wanted or there)
