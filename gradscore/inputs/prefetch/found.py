"""Consecutive inputs as they were read: arrays, or error messages.

A decoding process returns the pixels of many images as one block, which goes to the model without a copy.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Found = NDArray[Any] | str


@dataclass(frozen=True)
class Block:
    """Inputs of one shape in one array [N, ...].

    Rows of inputs with a problem hold no meaningful values.
    """

    rows: NDArray[Any]
    problems: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Found]:
        return (self.problems.get(index, row) for index, row in enumerate(self.rows))

    def good(self) -> Iterator[tuple[Sequence[int], NDArray[Any]]]:
        """Yield the places of the inputs without a problem, and their rows."""
        if not self.problems:
            yield range(len(self.rows)), self.rows
        elif places := [index for index in range(len(self.rows)) if index not in self.problems]:
            yield places, self.rows[places]


Part = Block | list[Found]


class Inputs:
    """Inputs as they were read, in consecutive parts."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[Found]:
        return chain.from_iterable(self._parts)

    def errors(self) -> tuple[str | None, ...]:
        """Return the error message of each input, or None where it was read."""
        if all(isinstance(part, Block) and not part.problems for part in self._parts):
            return (None,) * len(self)
        return tuple(found if isinstance(found, str) else None for found in self)

    def stacks(self) -> Iterator[tuple[Sequence[int], NDArray[Any]]]:
        """Yield the inputs grouped by type and shape, each group with its places.

        Usually there is one group.
        """
        places: dict[tuple[Any, ...], list[int]] = {}
        stacks: dict[tuple[Any, ...], list[NDArray[Any]]] = {}
        start = 0
        for part in self._parts:
            for within, rows in part.good() if isinstance(part, Block) else _one_by_one(part):
                kind = rows.dtype, rows.shape[1:]
                places.setdefault(kind, []).extend(start + place for place in within)
                stacks.setdefault(kind, []).append(rows)
            start += len(part)
        for kind, stack in stacks.items():
            yield places[kind], stack[0] if len(stack) == 1 else np.concatenate(stack)


def _one_by_one(part: list[Found]) -> Iterator[tuple[Sequence[int], NDArray[Any]]]:
    return (((place,), np.asarray(found)[None]) for place, found in enumerate(part) if not isinstance(found, str))
