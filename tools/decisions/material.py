"""What one repetition of a task holds: inputs of the known classes in three parts, and unknown inputs by name."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Family = Literal["known", "near", "far", "corruption", "noise", "made"]

UNKNOWN = -1  # the class of an input that belongs to none


@dataclass(frozen=True)
class Rows:
    """Inputs and their classes.

    Attributes
    ----------
    inputs : array [N, ...]
        uint8 pixels [N, C, H, W], float32 numbers [N, D], or int64 ids [N, T].
    classes : int64 [N]
        Their classes, −1 for inputs that belong to none.
    """

    inputs: NDArray[Any]
    classes: IntArray

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, rows: slice | IntArray) -> "Rows":
        return Rows(self.inputs[rows], self.classes[rows])

    @classmethod
    def unknown(cls, inputs: NDArray[Any]) -> "Rows":
        """Return inputs that belong to no class."""
        return cls(inputs, np.full(len(inputs), UNKNOWN, dtype=np.int64))

    @property
    def digest(self) -> str:
        """SHA-256 of inputs and classes."""
        return hashlib.sha256(np.ascontiguousarray(self.inputs).tobytes() + self.classes.tobytes()).hexdigest()


@dataclass(frozen=True)
class Group:
    """Test rows of one origin, and the family that it belongs to.

    The rows of a corruption keep their classes: a prediction for them can be right.
    """

    family: Family
    rows: Rows


@dataclass(frozen=True)
class Material:
    """Everything that one repetition of a task trains on, fits on and tests on.

    Attributes
    ----------
    class_names : tuple of str, [q]
        Names of the known classes.
    training, fit, test : Rows
        Inputs of known classes: for the classifier, for verdicts, and for the test. No input is in two of them.
    others : mapping of str to Group
        What else is tested on, by name.
    """

    class_names: tuple[str, ...]
    training: Rows
    fit: Rows
    test: Rows
    others: Mapping[str, Group]


def parted(places: IntArray, sizes: tuple[int, int, int], rng: np.random.Generator) -> list[IntArray]:
    """Draw three parts of these sizes from places; no place is in two of them."""
    if sum(sizes) > len(places):
        raise ValueError(f"parts of {sizes} rows cannot be drawn from {len(places)}")
    return np.split(rng.permutation(places)[: sum(sizes)], np.cumsum(sizes)[:-1])
