"""What was read for consecutive inputs: their arrays, and what is wrong with those that have none.

A process that decodes answers with the pixels of many images in one block, which goes to the model as it is.
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
    """Inputs of one shape in one array, [N, ...], in which the rows of those with a problem mean nothing."""

    rows: NDArray[Any]
    problems: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Found]:
        return (self.problems.get(index, row) for index, row in enumerate(self.rows))

    def good(self) -> Iterator[tuple[Sequence[int], NDArray[Any]]]:
        """Yield the rows without a problem, and their places."""
        if not self.problems:
            yield range(len(self.rows)), self.rows
        elif places := [index for index in range(len(self.rows)) if index not in self.problems]:
            yield places, self.rows[places]


Part = Block | list[Found]


class Inputs:
    """Inputs as they were read: part after part."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[Found]:
        return chain.from_iterable(self._parts)

    def errors(self) -> tuple[str | None, ...]:
        """Return what is wrong with each; None where nothing is."""
        if all(isinstance(part, Block) and not part.problems for part in self._parts):
            return (None,) * len(self)
        return tuple(found if isinstance(found, str) else None for found in self)

    def stacks(self) -> Iterator[tuple[Sequence[int], NDArray[Any]]]:
        """Yield batches of inputs of one type and shape, each with its places; most often there is one."""
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
