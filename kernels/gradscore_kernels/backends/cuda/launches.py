"""Start kernels on the device, and fetch their results at once or for many kernels together."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._accumulators import rounding_shows
from gradscore_kernels.backends.cuda import loops, tiles
from gradscore_kernels.backends.cuda.moments import THREADS, cuda, merge_chunks

Array = Any  # one of numba's device arrays
Accumulators = NDArray[np.float64]
Finish = Callable[[list[Accumulators]], Accumulators]

_ROWS = 1 << 14  # accumulators to make room for: 1 MiB
_local = threading.local()


def _first(found: list[Accumulators]) -> Accumulators:
    return found[0]


@lru_cache(maxsize=1024)
def _one_count(count: int) -> Array:
    return cuda.to_device(np.array([count]))


@dataclass(frozen=True)
class Launch:
    """A kernel over the elements of each sample's gradient: `most` elements, or `counts[sample]`."""

    kernel: Any
    given: tuple[Any, ...]
    most: int
    chunk: int = loops.CHUNK
    counts: NDArray[np.int64] | None = None

    @property
    def chunks(self) -> int:
        """Number of accumulators that the kernel writes for each sample."""
        return -(-self.most // self.chunk)

    def start(self, batch: int, rows: Array, begin: int) -> None:
        """Start the kernel, which writes its accumulators into the rows from `begin` on."""
        counts = _one_count(self.most) if self.counts is None else cuda.to_device(self.counts)
        self.kernel[batch * self.chunks, THREADS](self.given, counts, self.chunks, rows, begin)


@dataclass(frozen=True)
class Tiling:
    """A kernel over the tiles of each sample's gradient: `groups` matrices of `height` × `width`."""

    kernel: Any
    given: tuple[Any, ...]
    groups: int
    height: int
    width: int
    positions: int

    @property
    def chunks(self) -> int:
        """Number of accumulators that the kernel writes for each sample."""
        return self.groups * -(-self.height // tiles.ROWS) * -(-self.width // tiles.COLUMNS)

    def start(self, batch: int, rows: Array, begin: int) -> None:
        """Start the kernel, which writes its accumulators into the rows from `begin` on."""
        sizes = (self.groups, self.height, self.width, self.positions)
        self.kernel[batch * self.chunks, THREADS](self.given, *sizes, rows, begin)


def reduced(launches: Sequence[Launch | Tiling], batch: int, finish: Finish = _first) -> Accumulators:
    """Run kernels and return what `finish` makes of their accumulators; inside `together` it is filled at its end."""
    result = np.empty((batch, 8))
    if batch:
        _run(launches, batch, result, finish, _local_results())
    return result


def _run(
    launches: Sequence[Launch | Tiling], batch: int, result: Accumulators, finish: Finish, results: "_Results"
) -> None:
    begins = results.reserve(batch, len(launches))
    for launch, begin in zip(launches, begins, strict=True):
        if launch.chunks == 1:
            launch.start(batch, results.rows, begin)
        else:
            chunks = results.scratch(batch * launch.chunks)
            launch.start(batch, chunks, 0)
            merge_chunks[batch, THREADS](chunks, launch.chunks, results.rows, begin)
    results.expect(begins, result, finish)


def exact_where_far(exact: Launch, found: list[Accumulators]) -> Accumulators:
    """Reduce the batch again in float64 if the rounding of float32 shows, and replace those samples."""
    rows = found[0]
    far = rounding_shows(rows)
    if far.any():
        again = np.empty_like(rows)
        _run([exact], len(rows), again, _first, _Results())
        rows[far] = again[far]
    return rows


@contextmanager
def together() -> Iterator[None]:
    """Fetch the accumulators of all kernels that this thread runs inside in one copy at the end.

    Nothing may read the results before that.
    """
    results = _local_results()
    results.held += 1
    try:
        yield
    finally:
        results.held -= 1
        results.fetch()


class _Results:
    """The accumulators of one thread in device memory, and the host arrays that wait for them."""

    def __init__(self) -> None:
        self.held = 0
        self.rows: Array = cuda.device_array((_ROWS, 8), np.float64)
        self._used = 0
        self._waiting: list[tuple[Sequence[int], Accumulators, Finish]] = []
        self._scratch: Array = self.rows[:0]

    def reserve(self, batch: int, parts: int) -> Sequence[int]:
        """Return where each of `parts` blocks of `batch` free rows begins."""
        if self._used + batch * parts > len(self.rows):
            self._fetch()
            if batch * parts > len(self.rows):
                self.rows = cuda.device_array((batch * parts, 8), np.float64)
        begins = range(self._used, self._used + batch * parts, batch)
        self._used += batch * parts
        return begins

    def scratch(self, count: int) -> Array:
        """Return memory for the accumulators of chunks; kernels of one thread run in turn, so they may share it."""
        if len(self._scratch) < count:
            self._scratch = cuda.device_array((count, 8), np.float64)
        return self._scratch

    def expect(self, begins: Sequence[int], result: Accumulators, finish: Finish) -> None:
        """Fill `result` with what `finish` makes of the rows at `begins`, now or when `together` ends."""
        self._waiting.append((begins, result, finish))
        self.fetch()

    def fetch(self) -> None:
        """Fill the arrays that wait, unless `together` is still open."""
        if not self.held:
            self._fetch()

    def _fetch(self) -> None:
        waiting, self._waiting = self._waiting, []
        rows = self.rows[: self._used].copy_to_host() if waiting else np.empty((0, 8))
        self._used = 0
        rows[~np.isfinite(rows[:, 1]), 1:] = np.nan
        for begins, result, finish in waiting:
            result[:] = finish([rows[begin : begin + len(result)] for begin in begins])


def _local_results() -> _Results:
    if not hasattr(_local, "results"):
        _local.results = _Results()
    results: _Results = _local.results
    return results
