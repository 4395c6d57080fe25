"""Benchmark of scoring against other implementations: time in turn in one process, memory in separate ones."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gradscore_kernels import usable_cores

from gradscore.bench.candidates import CANDIDATES
from gradscore.bench.memory import Memory, measure_memory
from gradscore.bench.timing import Task, Timing, interleaved
from gradscore.bench.workloads import COMPARED, Workload, make_ready
from gradscore.errors import GradscoreError, InputError


@dataclass(frozen=True)
class ScoringRow:
    """The measurement of one way on one model.

    Attributes
    ----------
    timing, memory
        Time and memory of one batch. None if the way cannot run on the model.
    note
        Why there is no timing, and what to do. Empty if there is one.
    """

    model: str
    batch: int
    candidate: str
    gives: str
    timing: Timing | None
    memory: Memory | None
    note: str

    @property
    def microseconds(self) -> float | None:
        """Time per input in the fastest turn, in µs."""
        return None if self.timing is None else self.timing.best / self.batch * 1e6


def measure_scoring(
    *,
    models: Sequence[str] | None = None,
    candidates: Sequence[str] | None = None,
    threads: int | None = None,
    repeats: int = 7,
) -> list[ScoringRow]:
    """Measure the chosen ways on the chosen models. By default, all are measured.

    Raises
    ------
    InputError
        A model or a way does not exist.
    """
    unknown = [name for name in candidates or [] if name not in CANDIDATES]
    if unknown:
        raise InputError(f"unknown way {unknown[0]!r}: choose from {', '.join(CANDIDATES)}")
    rows = []
    for model in models or COMPARED:
        with tempfile.TemporaryDirectory() as folder:
            workload = make_ready(model, Path(folder), threads=threads or usable_cores())
            rows += _measure(workload, list(candidates or CANDIDATES), repeats)
    return rows


def _measure(workload: Workload, names: list[str], repeats: int) -> list[ScoringRow]:
    tasks: dict[str, Task] = {}
    notes: dict[str, str] = {}
    for name in names:
        try:
            tasks[name] = _started(workload, name)
        except GradscoreError as error:
            notes[name] = str(error)
    timings = interleaved(tasks, repeats=repeats)
    rows = []
    for name in names:
        memory = measure_memory(workload, name) if name in tasks else None
        gives = CANDIDATES[name].gives
        rows.append(
            ScoringRow(
                workload.name, workload.classifier.batch, name, gives, timings.get(name), memory, notes.get(name, "")
            )
        )
    return rows


def _started(workload: Workload, name: str) -> Task:
    """Start a way and run it once, so that failures show before the measurement.

    Raises
    ------
    GradscoreError
        The way is not installed, or cannot run on this model.
    """
    candidate = CANDIDATES[name]
    if not candidate.is_here:
        raise GradscoreError(f"not installed: {candidate.install}")
    try:
        task = candidate.start(workload)
        task()
    except (NotImplementedError, RuntimeError, AttributeError, ImportError) as error:
        if name.startswith(("gradscore", "signals")):
            raise
        raise GradscoreError(f"not possible: {str(error).splitlines()[0][:200]}") from error
    return task
