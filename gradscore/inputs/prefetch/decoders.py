"""Small images decoded in separate processes.

In this process, their decoding would hold the interpreter's lock most of the time, and scoring would wait for it.
"""

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
from gradscore.model.preprocessing import Preprocessing

_log = logging.getLogger(__name__)

_ENOUGH = 1024  # remaining inputs from which on a process pays for its start
_SMALL = 200e-6  # CPU seconds for one input, below which most of the time is spent under the interpreter's lock
_TINY = 4096  # bytes of a file that takes less than `_SMALL` to decode
_NEAR = 400e-6  # seconds for one input; above, reading waits for a disk or a network, which many threads do better


class Decoders:
    """Reads inputs in this process or in decoding processes, whichever is faster.

    A context manager: leaving the context ends the decoding processes.

    Parameters
    ----------
    read
        Reads one input in this process: returns its array, or an error message.
    preprocessing
        The model's preprocessing. Only images are decoded in other processes.
    threads
        Number of reading threads. At most half as many processes are started, and none for a single thread.
    inputs
        Number of inputs to read. If it is None, as many are expected to follow as were read before.
    """

    def __init__(
        self, read: Callable[[Entry], Found], preprocessing: Preprocessing, *, threads: int, inputs: int | None = None
    ) -> None:
        self._read, self._preprocessing, self._inputs = read, preprocessing, inputs
        self._most = threads // 2 if preprocessing.kind == "image" and can_start() else 0
        self._processes: list[DecodingProcess] = []
        self._turn = count()
        self._starting: Future[None] | None = None  # the start of the latest process
        self._lock = Lock()
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="gradscore-start")
        self._read_here, self._small = 0, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes. No thread may still be reading."""
        self._starter.shutdown(cancel_futures=True)
        while self._processes:
            self._processes.pop().close()

    def expect(self, paths: Sequence[str] | None) -> None:
        """Start a process before the first read if many small files are expected."""
        with suppress(OSError, ValueError):  # an unreadable file is reported when it is read
            if self._most and paths and all(Path(path).stat().st_size <= _TINY for path in paths):
                self._started()

    def read(self, entries: Sequence[Entry], readers: Readers) -> Part:
        """Read inputs in order. Safe to call from any thread."""
        paths = paths_of(entries) if self._most and self._small else None
        if paths and self._started():
            return self._elsewhere(entries, paths, readers)
        return self._here(entries, readers)

    def _started(self) -> bool:
        """Return whether a process is ready.

        If none was started and many inputs follow, start one. Reading goes on here meanwhile.
        """
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
        _log.warning("a decoding process failed (%s): decoding goes on in the main process", error)
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
        """Return one of at most `most` processes, in turn.

        If there are fewer, another one starts meanwhile.
        """
        with self._lock:
            up = len(self._processes)
            if up < most and (self._starting is None or self._starting.done()):
                self._starting = self._starter.submit(self._start)
            return self._processes[next(self._turn) % max(1, min(most, up))]

    def _judge(self, count: int, cpu: float, wall: float) -> None:
        self._small = cpu < _SMALL * count and wall < _NEAR * count
