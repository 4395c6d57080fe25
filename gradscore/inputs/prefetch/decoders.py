"""Small images decoded in processes of their own: here they would keep the interpreter's lock from whoever scores them."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Self

from gradscore.inputs.entries import Entry, paths_of
from gradscore.inputs.prefetch.decoding_process import DecodingProcess, can_start
from gradscore.inputs.prefetch.found import Found, Part
from gradscore.inputs.prefetch.pipeline import Readers
from gradscore.model.metadata import Preprocessing

_log = logging.getLogger(__name__)

_ENOUGH = 1024  # inputs to come for which a process pays
_SMALL = 200e-6  # seconds of a core to read one, most of them under the lock
_TINY = 4096  # bytes of a file that is decoded as fast
_NEAR = 400e-6  # seconds to read one; what waits for a disk or a network is read by threads, many at a time


class Decoders:
    """Reads inputs wherever that is faster, here or in other processes; a context that ends these.

    Parameters
    ----------
    read
        What reads one input here: its array, or what is wrong with it.
    threads
        Half as many processes at most, and none beside a single thread.
    inputs
        Number of inputs to read; where it is not known, as many are taken to follow as were read before.
    """

    def __init__(
        self, read: Callable[[Entry], Found], preprocessing: Preprocessing, *, threads: int, inputs: int | None = None
    ) -> None:
        self._read, self._preprocessing, self._inputs = read, preprocessing, inputs
        self._most = threads // 2 if preprocessing.kind == "image" and can_start() else 0
        self._processes: list[DecodingProcess] = []
        self._turn = count()
        self._starting: Future[None] | None = None  # the latest
        self._lock = Lock()
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="gradscore-start")
        self._read_here, self._small = 0, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes; nobody reads any longer."""
        self._starter.shutdown(cancel_futures=True)
        while self._processes:
            self._processes.pop().close()

    def expect(self, paths: Sequence[str] | None) -> None:
        """Start a process before anything is read if many inputs follow, of which these are files too small to take long."""
        with suppress(OSError, ValueError):  # they get their turn
            if self._most and paths and all(Path(path).stat().st_size <= _TINY for path in paths):
                self._started()

    def read(self, entries: Sequence[Entry], readers: Readers) -> Part:
        """Read inputs in order; safe to call from any thread."""
        paths = paths_of(entries) if self._most and self._small else None
        if paths and self._started():
            return self._elsewhere(entries, paths, readers)
        return self._here(entries, readers)

    def _started(self) -> bool:
        """Tell whether a process is up; the first is given a tenth of a second while reading goes on here."""
        with self._lock:
            to_come = self._read_here if self._inputs is None else self._inputs - self._read_here
            if self._starting is None and to_come >= _ENOUGH:
                self._starting = self._starter.submit(self._start)
            return bool(self._processes)

    def _start(self) -> None:
        process = None
        try:
            process = DecodingProcess(self._preprocessing)
            process.read([])
            self._processes.append(process)
        except (OSError, ValueError) as error:
            self._give_up(process, error)

    def _give_up(self, process: DecodingProcess | None, error: Exception) -> None:
        _log.warning("decoding goes on without a process of its own, which ended: %s", error)
        self._most = 0
        if process is not None:
            process.close()

    def _here(self, entries: Sequence[Entry], readers: Readers) -> list[Found]:
        with readers.slots:
            start, cpu = time.perf_counter(), time.thread_time()
            found = [self._read(entry) for entry in entries]
        self._read_here += len(entries)
        self._judge(len(entries), time.thread_time() - cpu, time.perf_counter() - start)
        return found

    def _elsewhere(self, entries: Sequence[Entry], paths: Sequence[str], readers: Readers) -> Part:
        process = None
        try:
            process = self._next(min(readers.count, self._most))
            read = process.read(paths)
            readers.elsewhere = True
        except (OSError, ValueError) as error:
            self._give_up(process, error)
            return self._here(entries, readers)
        self._judge(len(paths), read.cpu, read.wall)
        for index, problem in read.found.problems.items():
            _log.warning("%s: %s", entries[index].id, problem)
        for index, seconds in read.slow.items():
            _log.warning("%s took %.0f s to read", entries[index].id, seconds)
        return read.found

    def _next(self, most: int) -> DecodingProcess:
        """Return one of so many processes, in turn; one that is not there yet starts while the others go on."""
        with self._lock:
            up = len(self._processes)
            if up < most and (self._starting is None or self._starting.done()):
                self._starting = self._starter.submit(self._start)
            return self._processes[next(self._turn) % max(1, min(most, up))]

    def _judge(self, count: int, cpu: float, wall: float) -> None:
        self._small = cpu < _SMALL * count and wall < _NEAR * count
