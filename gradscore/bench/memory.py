"""Peak memory of one way, measured in separate processes.

A process runs `python -m gradscore.bench.memory MODEL FOLDER THREADS WAY`. The peak depends on which micro-batches
happen to run at the same time, so the result is the median of several processes.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from gradscore.bench.workloads import Workload
from gradscore.errors import GradscoreError

ROUNDS = 3
PATIENCE = 10.0  # seconds after which no further round starts
PROCESSES = 5
ENOUGH = 12.0  # seconds after which no further process starts


@dataclass(frozen=True)
class Memory:
    """Resident memory in bytes, when the way is ready and at its peak.

    A way is ready when its modules are imported and its model is loaded.
    """

    ready: int
    peak: int


def measure_memory(workload: Workload, candidate: str) -> Memory:
    """Run the candidate in new processes, and return the memory of the median one.

    Raises
    ------
    GradscoreError
        A process failed, or this system does not report the peak memory of a process.
    """
    start, found = perf_counter(), [_in_a_process(workload, candidate)]
    while len(found) < PROCESSES and perf_counter() - start < ENOUGH:
        found.append(_in_a_process(workload, candidate))
    return sorted(found, key=lambda memory: memory.peak)[len(found) // 2]


def _in_a_process(workload: Workload, candidate: str) -> Memory:
    command = [sys.executable, "-W", "ignore", "-m", "gradscore.bench.memory"]
    arguments = [workload.name, str(workload.folder), str(workload.threads), candidate]
    path = os.pathsep.join(part for part in sys.path if part)
    run = subprocess.run(  # noqa: S603 - our own interpreter and module
        [*command, *arguments], capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path}
    )
    if run.returncode:
        last = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        raise GradscoreError(f"memory of {candidate} on {workload.name}: {last}")
    return Memory(**json.loads(run.stdout.splitlines()[-1]))


def _kilobytes(field: str) -> int:
    """Read a field of this process's status. `ru_maxrss` is no alternative: it includes the parent's peak."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except FileNotFoundError as error:
        raise GradscoreError(
            "peak memory needs /proc/self/status, which this system lacks: measure on Linux"
        ) from error
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def main() -> None:
    """Measure one candidate and print its memory as JSON."""
    from gradscore.bench.candidates import CANDIDATES  # noqa: PLC0415 - the parent does not need them

    name, folder, threads, candidate = sys.argv[1:]
    task = CANDIDATES[candidate].start(Workload(name, Path(folder), int(threads)))
    ready = _kilobytes("VmRSS:")
    start = perf_counter()
    for _ in range(ROUNDS):
        if perf_counter() - start < PATIENCE:
            task()
    print(json.dumps({"ready": ready * 1024, "peak": _kilobytes("VmHWM:") * 1024}))


if __name__ == "__main__":
    main()
