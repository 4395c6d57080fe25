"""Inputs read ahead in threads, in order, and never more of them than memory was set aside for."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Semaphore
from typing import Generic, TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")

_LARGEST_TASK = 64  # inputs: small ones take less time than handing a task over
_AHEAD = 4  # batches at most
AHEAD_BYTES = 128 << 20


class ReadAhead(Generic[Item, Read]):
    """Batches of items with what was read for each; a slow consumer halts the reading.

    One thread reads until the consumer has to wait for it, then one more each time that happens: small images are
    mostly decoded under the interpreter's lock, and a reader that nobody waits for would only keep it from the consumer.

    Parameters
    ----------
    read
        What turns one item into an input; runs in threads, and must not raise for what may be wrong with an input.
    threads
        Threads that read, at most.
    size_of_one
        Bytes of one input once read: bounds how many batches are read ahead, at least one.
    """

    def __init__(self, read: Callable[[Item], Read], *, batch_size: int, threads: int, size_of_one: int = 0) -> None:
        self._read, self._batch_size, self._threads = read, batch_size, threads
        self._task = max(1, min(_LARGEST_TASK, batch_size // threads))
        self._ahead = max(1, min(_AHEAD, AHEAD_BYTES // max(1, size_of_one * batch_size)))
        self._readers, self._running = 1, Semaphore(1)

    def batches(self, items: Iterable[Item]) -> Generator[tuple[list[Item], list[Read]], None, None]:
        """Yield the items in order, `batch_size` at a time, each with what was read for it."""
        remaining = iter(items)
        waiting: deque[tuple[list[Item], list[Future[list[Read]]]]] = deque()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="gradscore-decode")
        begun = False  # everyone waits for the first batch
        try:
            while True:
                while len(waiting) <= self._ahead and (batch := list(islice(remaining, self._batch_size))):
                    waiting.append((batch, [pool.submit(self._some, part) for part in self._parts(batch)]))
                if not waiting:
                    return
                batch, futures = waiting.popleft()
                if begun and not futures[-1].done():
                    self._add_reader()
                begun = True
                yield batch, [one for future in futures for one in future.result()]
        finally:
            pool.shutdown(cancel_futures=True)

    def _some(self, items: Sequence[Item]) -> list[Read]:
        with self._running:
            return [self._read(item) for item in items]

    def _add_reader(self) -> None:
        if self._readers < self._threads:
            self._readers += 1
            self._running.release()

    def _parts(self, batch: Sequence[Item]) -> Iterator[Sequence[Item]]:
        return (batch[start : start + self._task] for start in range(0, len(batch), self._task))
