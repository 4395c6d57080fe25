"""Inputs read ahead in threads, in order, and never more of them than memory was set aside for."""

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Semaphore
from typing import Generic, TypeVar

from gradscore.inputs.entries import Listing

Item = TypeVar("Item")
Read = TypeVar("Read")

_LARGEST_TASK = 256  # inputs: small ones take less time than handing a task over
_AHEAD = 8  # batches at most: what scoring and decoding differ by for a while must not halt either
AHEAD_BYTES = 128 << 20
_WINDOW = 0.1  # seconds over which reading is measured, at least
_WORTHWHILE = 1.2  # so much faster must twice the readers be


class ReadAhead(Generic[Item, Read]):
    """Batches of items with what was read for them, once and in parts; a slow consumer halts the reading.

    Parameters
    ----------
    read
        What turns some items into inputs, holding one of the readers' slots while it does so in this process; runs in
        threads, and must not raise for what may be wrong with an input.
    threads
        Threads that read, at most.
    size_of_one
        Bytes of one input once read: bounds how many batches are read ahead, at least one.
    """

    def __init__(
        self,
        read: Callable[[Sequence[Item], "Readers"], Read],
        *,
        batch_size: int,
        threads: int,
        size_of_one: int = 0,
    ) -> None:
        self._read, self._batch_size, self._threads = read, batch_size, threads
        self._ahead = max(1, min(_AHEAD, AHEAD_BYTES // max(1, size_of_one * batch_size)))
        self._waiting: deque[tuple[Sequence[Item], list[Future[Read]]]] = deque()
        self._readers = Readers(threads)

    def spare_threads(self) -> int:
        """Return how many threads are free for the consumer: all if the next batch is there, else those that do not read.

        Whoever takes the cores from the readers then only waits for them afterwards, with cores that lie idle.
        """
        behind = self._waiting and not all(future.done() for future in self._waiting[0][1])
        return max(1, self._threads - self._readers.count) if behind else self._threads

    def batches(self, items: Iterable[Item]) -> Generator[tuple[Sequence[Item], list[Read]], None, None]:
        """Yield the items in order, `batch_size` at a time, each batch with its parts as they were read."""
        remaining, waiting, readers = _pieces(items, self._batch_size), self._waiting, self._readers
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="gradscore-decode")
        try:
            while True:
                while len(waiting) <= self._ahead and (batch := next(remaining, None)):
                    waiting.append((batch, [pool.submit(self._read, part, readers) for part in self._parts(batch)]))
                if not waiting:
                    return
                batch, futures = waiting.popleft()
                start = time.perf_counter()
                read = [future.result() for future in futures]
                readers.gave(len(batch), time.perf_counter() - start)
                yield batch, read
        finally:
            pool.shutdown(cancel_futures=True)

    def _parts(self, batch: Sequence[Item]) -> Iterator[Sequence[Item]]:
        """Cut a batch into a part for each that may read it: a process, or one of all the threads."""
        among = self._readers.count if self._readers.elsewhere else self._threads
        return _pieces(batch, max(1, min(_LARGEST_TASK, self._batch_size // among)))


def _pieces(items: Iterable[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield so many items at a time; of a listing its parts, which are lazy as well."""
    if isinstance(items, (Listing, list)):
        return (items[start : start + size] for start in range(0, len(items), size))
    remaining = iter(items)
    return iter(lambda: list(islice(remaining, size)), [])


class Readers:
    """How many read at a time, threads here or processes elsewhere: at first one.

    There are twice as many as long as the consumer waits and that makes them faster.
    What is read under the interpreter's lock is read no faster by two threads, which keep the lock from the consumer
    besides. Large images are decoded outside it, on as many cores as there are; small ones end up in `Decoders`.
    """

    def __init__(self, most: int) -> None:
        self.slots = Semaphore(1)
        self.elsewhere = False  # set by who reads in another process
        self._most, self.count, self._before = most, 1, 1
        self._rate = 0.0  # items a second, with as many readers as before
        self._settled = False
        self._items, self._waited, self._since = 0, 0.0, math.inf

    def gave(self, items: int, waited: float) -> None:
        """Take note that the consumer got so many items after waiting so many seconds."""
        now = time.perf_counter()
        self._items += items
        self._waited += waited
        if self._since == math.inf:  # the first batch is slow: everything is loaded on its way
            self._begin(now)
        elif not self._settled and (elapsed := now - self._since) >= _WINDOW:
            if self._waited > elapsed / 2:
                self._judge(self._items / elapsed)
            self._begin(now)

    def _begin(self, now: float) -> None:
        self._items, self._waited, self._since = 0, 0.0, now

    def _judge(self, rate: float) -> None:
        if rate < self._rate * _WORTHWHILE:
            self._settled, wanted = True, self._before
        else:
            self._rate, self._before, wanted = rate, self.count, min(2 * self.count, self._most)
            self._settled = wanted == self.count
        for _ in range(self.count - wanted):
            self.slots.acquire()
        if wanted > self.count:
            self.slots.release(wanted - self.count)
        self.count = wanted
