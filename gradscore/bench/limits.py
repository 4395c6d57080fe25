"""Limits of one core of this machine: reading memory and multiplying matrices."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from gradscore.bench.timing import Task

MEMORY = 64 << 20
SIDE = 1024


@dataclass(frozen=True)
class Limit:
    """A task that does only the limiting work, and the amount of that work."""

    name: str
    work: float
    unit: str
    task: Task


@cache
def read() -> Limit:
    """Return the limit of reading memory: a BLAS dot product over 64 MiB.

    It is faster than NumPy's own sum.
    """
    values = np.ones(MEMORY // 4, dtype=np.float32)
    return Limit("memory read", MEMORY / 1e9, "GB/s", lambda: np.dot(values, values))


@cache
def multiply() -> Limit:
    """Return the limit of arithmetic: the product of two float32 matrices of 1024², by NumPy's BLAS."""
    left, right = np.random.default_rng(0).normal(size=(2, SIDE, SIDE)).astype(np.float32)
    return Limit("sgemm", 2 * SIDE**3 / 1e9, "GFLOP/s", lambda: left @ right)
