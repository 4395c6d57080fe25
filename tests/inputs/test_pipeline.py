"""Prefetching keeps the order and the limits, and uses no more threads than help the consumer."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradscore.inputs.prefetch.pipeline import AHEAD_BYTES, ReadAhead


def each(read):
    def some(items, readers):
        with readers.slots:
            return [read(item) for item in items]

    return some


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 300), batch_size=st.integers(1, 90), threads=st.integers(1, 5))
def test_every_item_is_read_once_and_in_order(count, batch_size, threads):
    ahead = ReadAhead(each(lambda item: -item), batch_size=batch_size, threads=threads)
    batches = list(ahead.batches(iter(range(count))))
    assert [len(items) for items, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert [item for items, _ in batches for item in items] == list(range(count))
    assert [read for _, parts in batches for found in parts for read in found] == [-item for item in range(count)]


def readers_at_the_end(read, seconds_to_consume=0.0, count=400):
    """Return how many threads read at the same time towards the end, of the four that might."""
    lock, now, most = threading.Lock(), 0, 0

    def counted(item):
        nonlocal now, most
        with lock:
            now += 1
            if item > count * 0.9:
                most = max(most, now)
        read(item)
        with lock:
            now -= 1

    for _ in ReadAhead(each(counted), batch_size=4, threads=4).batches(range(count)):
        time.sleep(seconds_to_consume)
    return most


def test_threads_read_side_by_side_where_that_is_faster():
    assert readers_at_the_end(lambda _: time.sleep(0.005)) == 4


def test_one_thread_reads_where_the_consumer_is_slower():
    assert readers_at_the_end(lambda _: None, 0.005) == 1


def test_one_thread_reads_where_others_would_only_wait_for_it():
    """As small images do for the interpreter's lock."""
    lock = threading.Lock()

    def read(_):
        with lock:
            time.sleep(0.003)

    assert readers_at_the_end(read) < 4  # a disturbed measurement may let one more in


@pytest.mark.parametrize(("size_of_one", "most"), [(0, 10), (AHEAD_BYTES, 3)])
def test_a_slow_consumer_halts_the_reading(size_of_one, most):
    begun = []
    batches = ReadAhead(each(begun.append), batch_size=10, threads=2, size_of_one=size_of_one).batches(range(1000))
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
        list(ReadAhead(each(read), batch_size=5, threads=2).batches(range(20)))
