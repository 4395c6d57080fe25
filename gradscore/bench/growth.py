"""Growth of scoring with the number of samples: time per input, and memory."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from gradscore_kernels import usable_cores

from gradscore.bench.candidates import CANDIDATES
from gradscore.bench.memory import measure_memory
from gradscore.bench.timing import Task, Timing, interleaved
from gradscore.bench.workloads import Workload, make_ready
from gradscore.scoring.scorer import Scorer

SAMPLES = (256, 1024, 4096, 16384)
_WAY = "gradscore"


@dataclass(frozen=True)
class GrowthRow:
    """The time and memory of scoring `samples` inputs in one call.

    Attributes
    ----------
    samples
        Inputs in the call.
    timing
        Seconds of the call.
    added
        Peak memory of the call minus the memory before it, in bytes. The inputs are in memory before the call.
    scores
        Size of the scores that the call returns, in bytes.
    """

    samples: int
    timing: Timing
    added: int
    scores: int

    @property
    def microseconds(self) -> float:
        """Time per input in the fastest turn, in µs."""
        return self.timing.best / self.samples * 1e6


def measure_growth(
    model: str = "paper-cnn", *, samples: Sequence[int] = SAMPLES, threads: int | None = None, repeats: int = 7
) -> list[GrowthRow]:
    """Score one model's inputs in calls of each size, in turn.

    Memory is measured in separate processes.
    """
    with tempfile.TemporaryDirectory() as folder:
        first = make_ready(model, Path(folder) / "first", threads=threads or usable_cores())
        workloads = {count: _repeated(first, count) for count in samples}
        tasks: dict[str, Task] = {str(count): CANDIDATES[_WAY].start(workload) for count, workload in workloads.items()}
        for task in tasks.values():
            task()
        timings = interleaved(tasks, repeats=repeats)
        with Scorer.load(first.scoring) as scorer:
            row_bytes = 8 * (1 + len(scorer.feature_names))
        return [_row(workload, count, timings[str(count)], row_bytes) for count, workload in workloads.items()]


def _row(workload: Workload, samples: int, timing: Timing, row_bytes: int) -> GrowthRow:
    memory = measure_memory(workload, _WAY)
    return GrowthRow(samples, timing, memory.peak - memory.ready, row_bytes * samples)


def _repeated(workload: Workload, samples: int) -> Workload:
    """Return the workload with its inputs repeated to `samples` inputs."""
    folder = workload.folder.parent / str(samples)
    folder.mkdir()
    shutil.copy(workload.scoring, folder)
    np.save(folder / "inputs.npy", np.resize(workload.batch, (samples, *workload.batch.shape[1:])))
    return replace(workload, folder=folder)
