"""Inputs prefetched in threads, in order, within a fixed budget of memory."""

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

_LARGEST_TASK = 256  # inputs: handing over a task takes longer than reading one small input
_AHEAD = 8  # batches at most: a reserve for moments when scoring or decoding is slower than usual
AHEAD_BYTES = 128 << 20
_WINDOW = 0.1  # shortest time in seconds over which the reading rate is measured
_WORTHWHILE = 1.2  # twice the readers must be faster by this factor


class ReadAhead(Generic[Item, Read]):
    """Batches of items and the inputs read for them. Reading pauses when the consumer is slow.

    Parameters
    ----------
    read
        Turns some items into inputs. It runs in threads. While it reads in this process, it must hold one of the
        readers' slots. It must not raise for a broken input.
    batch_size
        Number of items in a batch.
    threads
        Largest number of reading threads.
    size_of_one
        Bytes of one input once read. It limits how many batches are read ahead, but never below one.
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
        """Return how many threads the consumer may use.

        These are all threads if the next batch is ready, else those that do not read. If the consumer took cores from
        the readers, it would only wait for them afterwards, with idle cores.
        """
        behind = self._waiting and not all(future.done() for future in self._waiting[0][1])
        return max(1, self._threads - self._readers.count) if behind else self._threads

    def batches(self, items: Iterable[Item]) -> Generator[tuple[Sequence[Item], list[Read]], None, None]:
        """Yield the items in order, `batch_size` at a time, each batch with its parts as read."""
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
        """Split a batch into one part for each reader.

        The readers are the decoding processes if there are any, else all threads.
        """
        among = self._readers.count if self._readers.elsewhere else self._threads
        return _pieces(batch, max(1, min(_LARGEST_TASK, self._batch_size // among)))


def _pieces(items: Iterable[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield `size` items at a time. Slices of a listing stay lazy."""
    if isinstance(items, (Listing, list)):
        return (items[start : start + size] for start in range(0, len(items), size))
    remaining = iter(items)
    return iter(lambda: list(islice(remaining, size)), [])


class Readers:
    """The number of readers that work at a time, threads or decoding processes.

    It starts at one.

    While the consumer waits for inputs, the number doubles as long as that makes reading faster. Two threads that read
    under the interpreter's lock are no faster than one, and they keep the lock from the consumer. Large images are
    decoded outside the lock, on all cores. Small ones go to `Decoders`.
    """

    def __init__(self, most: int) -> None:
        self.slots = Semaphore(1)
        self.elsewhere = False  # set once inputs are read in another process
        self._most, self.count, self._before = most, 1, 1
        self._rate = 0.0  # items per second, with `_before` readers
        self._settled = False
        self._items, self._waited, self._since = 0, 0.0, math.inf

    def gave(self, items: int, waited: float) -> None:
        """Record that the consumer got `items` items after waiting `waited` seconds, and adapt the number."""
        now = time.perf_counter()
        self._items += items
        self._waited += waited
        if self._since == math.inf:  # the first batch is not measured: it includes loading the libraries
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
