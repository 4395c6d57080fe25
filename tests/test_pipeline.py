"""Reading ahead keeps order and bounds, and takes no more threads than the consumer waits for."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradscore.pipeline import AHEAD_BYTES, ReadAhead


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 300), batch_size=st.integers(1, 90), threads=st.integers(1, 5))
def test_every_item_is_read_once_and_in_order(count, batch_size, threads):
    ahead = ReadAhead(lambda item: -item, batch_size=batch_size, threads=threads)
    batches = list(ahead.batches(iter(range(count))))
    assert [len(items) for items, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert [item for items, _ in batches for item in items] == list(range(count))
    assert [read for _, found in batches for read in found] == [-item for item in range(count)]


def most_at_once(seconds_to_read, seconds_to_consume):
    """Return how many threads read at the same time, of the four that might."""
    lock, now, most = threading.Lock(), 0, 0

    def read(item):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(seconds_to_read)
        with lock:
            now -= 1
        return item

    for _ in ReadAhead(read, batch_size=4, threads=4).batches(range(80)):
        time.sleep(seconds_to_consume)
    return most


def test_threads_read_side_by_side_where_reading_is_slow():
    assert most_at_once(0.005, 0) == 4


def test_one_thread_reads_where_the_consumer_is_slower():
    assert most_at_once(0, 0.02) == 1


@pytest.mark.parametrize(("size_of_one", "most"), [(0, 6), (AHEAD_BYTES, 3)])
def test_a_slow_consumer_halts_the_reading(size_of_one, most):
    begun = []
    batches = ReadAhead(begun.append, batch_size=10, threads=2, size_of_one=size_of_one).batches(range(1000))
    next(batches)
    time.sleep(0.2)
    assert len(begun) <= 10 * most
    batches.close()
    assert not any(thread.name.startswith("gradscore-decode") for thread in threading.enumerate())


def test_a_failing_reader_ends_the_reading():
    def read(item):
        if item == 7:
            raise MemoryError
        return item

    with pytest.raises(MemoryError):
        list(ReadAhead(read, batch_size=5, threads=2).batches(range(20)))
