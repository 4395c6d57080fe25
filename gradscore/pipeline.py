"""Inputs read ahead in threads, in order, and never more of them than memory was set aside for."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")

_TASK = 16  # inputs a task: small ones take less time than handing a task over
_AHEAD = 4  # batches at most
AHEAD_BYTES = 128 << 20


class ReadAhead(Generic[Item, Read]):
    """Batches of items with what was read for each; a slow consumer halts the reading.

    Parameters
    ----------
    read
        What turns one item into an input; runs in threads, and must not raise for what may be wrong with an input.
    size_of_one
        Bytes of one input once read: bounds how many batches are read ahead, at least one.
    """

    def __init__(self, read: Callable[[Item], Read], *, batch_size: int, threads: int, size_of_one: int = 0) -> None:
        self._read, self._batch_size, self._threads = read, batch_size, threads
        self._ahead = max(1, min(_AHEAD, AHEAD_BYTES // max(1, size_of_one * batch_size)))

    def batches(self, items: Iterable[Item]) -> Generator[tuple[list[Item], list[Read]], None, None]:
        """Yield the items in order, `batch_size` at a time, each with what was read for it."""
        remaining = iter(items)
        waiting: deque[tuple[list[Item], list[Future[list[Read]]]]] = deque()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="gradscore-decode")
        try:
            while True:
                while len(waiting) <= self._ahead and (batch := list(islice(remaining, self._batch_size))):
                    waiting.append((batch, [pool.submit(self._some, part) for part in _parts(batch)]))
                if not waiting:
                    return
                batch, futures = waiting.popleft()
                yield batch, [one for future in futures for one in future.result()]
        finally:
            pool.shutdown(cancel_futures=True)

    def _some(self, items: Sequence[Item]) -> list[Read]:
        return [self._read(item) for item in items]


def _parts(batch: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (batch[start : start + _TASK] for start in range(0, len(batch), _TASK))
