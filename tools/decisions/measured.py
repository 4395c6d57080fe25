"""The scored rows of one repetition as a benchmark reads them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Measured:
    """Scored rows of one task and seed.

    Attributes
    ----------
    features : float64 [N, F]
        The score table.
    feature_names : tuple of str, [F]
        Its columns.
    label, truth : int64 [N]
        Predicted classes, and true ones: −1 for inputs of no known class.
    group : int64 [N]
        Index in `group_names`.
    group_names, families : tuples of str, [G]
        Origins of rows, and the family of each: "known", "made" (synthetic), "near", "far", "corruption" or "noise".
    split : str [N]
        "fit" for rows that verdicts may see, "test" for all others.
    head_weight, head_bias : float32 [q, D] and [q]
        The dense layer that makes the logits.
    about : mapping
        Task, seed, class names, accuracy, seconds and versions.
    """

    features: FloatArray
    feature_names: tuple[str, ...]
    label: IntArray
    truth: IntArray
    group: IntArray
    group_names: tuple[str, ...]
    families: tuple[str, ...]
    split: NDArray[np.str_]
    head_weight: NDArray[np.float32]
    head_bias: NDArray[np.float32]
    about: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Measured":
        """Read a file of `tools.decisions.scoring`."""
        with np.load(path, allow_pickle=False) as file:
            fields: dict[str, Any] = {name: file[name] for name in file.files}
        texts = {name: tuple(fields[name].tolist()) for name in ("feature_names", "group_names", "families")}
        return cls(**{**fields, **texts, "about": json.loads(str(fields["about"]))})

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def correct(self) -> Mask:
        """Whether each prediction is right; never for an input of no known class."""
        return np.asarray(self.label == self.truth)

    @property
    def fit(self) -> Mask:
        """The rows that verdicts may see: known ones, and synthetic unknowns."""
        return np.asarray(self.split == "fit")

    @property
    def test(self) -> Mask:
        """The rows of the test."""
        return np.asarray(self.split == "test")

    def of(self, group: str) -> Mask:
        """Return which rows are of a group."""
        return np.asarray(self.group == self.group_names.index(group))

    def family(self, *names: str) -> Mask:
        """Return which rows are of these families."""
        return np.isin(np.array(self.families)[self.group], names)

    def columns(self, *names: str) -> FloatArray:
        """Return the features with these names, [N, len(names)]."""
        return self.features[:, [self.feature_names.index(name) for name in names]]
