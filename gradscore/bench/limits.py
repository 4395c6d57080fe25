"""What one core of this machine can do at best: read memory, and multiply matrices."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from gradscore.bench.timing import Task

MEMORY = 64 << 20
SIDE = 1024


@dataclass(frozen=True)
class Limit:
    """A task that does nothing but the limiting work, how much of it, and the unit of its rate."""

    name: str
    work: float
    unit: str
    task: Task


@cache
def read() -> Limit:
    """Read 64 MiB once: the sum of float32 numbers, as a BLAS dot product (faster than NumPy's own sum)."""
    values = np.ones(MEMORY // 4, dtype=np.float32)
    return Limit("memory read", MEMORY / 1e9, "GB/s", lambda: np.dot(values, values))


@cache
def multiply() -> Limit:
    """Multiply two float32 matrices of 1024²: the BLAS of this NumPy."""
    left, right = np.random.default_rng(0).normal(size=(2, SIDE, SIDE)).astype(np.float32)
    return Limit("sgemm", 2 * SIDE**3 / 1e9, "GFLOP/s", lambda: left @ right)
