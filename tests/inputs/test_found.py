"""Inputs read in parts become batches of one shape, with every input and every problem in its place."""

import numpy as np
import pytest

from gradscore.inputs.prefetch.found import Block, Inputs


def block(first, count, problems=()):
    rows = np.arange(first, first + count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2), np.uint8)
    return Block(rows, {place: f"problem {first + place}" for place in problems})


def one_by_one(part):
    return list(part)


@pytest.mark.parametrize(
    "parts",
    [
        [block(0, 4), block(4, 3)],
        [block(0, 4, [1, 3]), block(4, 3)],
        [one_by_one(block(0, 4, [0])), block(4, 3, [2])],
        [block(0, 4, range(4)), one_by_one(block(4, 3))],
    ],
)
def test_parts_come_together(parts):
    inputs = Inputs(parts)
    found = list(inputs)
    assert len(inputs) == len(found) == 7
    assert inputs.errors() == tuple(one if isinstance(one, str) else None for one in found)
    ((places, rows),) = inputs.stacks()
    assert list(places) == [place for place, error in enumerate(inputs.errors()) if error is None]
    assert rows[:, 0, 0, 0].tolist() == list(places)
    assert all(error in (None, f"problem {place}") for place, error in enumerate(inputs.errors()))


def test_a_block_is_not_copied():
    whole = block(0, 5)
    ((places, rows),) = Inputs([whole]).stacks()
    assert rows is whole.rows
    assert list(places) == list(range(5))


def test_kinds_are_kept_apart():
    floats, larger = np.zeros((1, 2, 2), np.float32), np.ones((1, 3, 3), np.uint8)
    stacks = list(Inputs([block(0, 2), [floats, larger, "gone"], block(5, 1)]).stacks())
    assert [(list(places), rows.dtype, rows.shape) for places, rows in stacks] == [
        ([0, 1, 5], np.uint8, (3, 1, 2, 2)),
        ([2], np.float32, (1, 1, 2, 2)),
        ([3], np.uint8, (1, 1, 3, 3)),
    ]


def test_nothing_but_problems_is_no_batch():
    inputs = Inputs([block(0, 2, [0, 1]), ["gone"]])
    assert list(inputs.stacks()) == []
    assert inputs.errors() == ("problem 0", "problem 1", "gone")
