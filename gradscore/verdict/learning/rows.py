"""The rows of a fit: features and outcomes, and which rows are unknown inputs and of what kind."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

KNOWN = -1  # kind of the rows that are no unknown inputs


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Rows of features with their outcomes.

    Attributes
    ----------
    features
        float64 [N, F], finite.
    names
        Names of the F features.
    right
        bool [N], whether each prediction is right. Always False for unknown inputs.
    kind
        int64 [N], number of the kind of each unknown input; −1 for known inputs.
    label
        int64 [N], predicted class; −1 where it is not told.
    """

    features: FloatArray
    names: tuple[str, ...]
    right: BoolArray
    kind: IntArray
    label: IntArray

    def __len__(self) -> int:
        return len(self.right)

    @property
    def known(self) -> BoolArray:
        """Bool [N], whether each row is an input of the known classes."""
        return np.asarray(self.kind == KNOWN)

    @property
    def kinds(self) -> IntArray:
        """Numbers of the kinds of unknown inputs among the rows."""
        return np.unique(self.kind[self.kind != KNOWN])

    def take(self, rows: npt.NDArray[np.int64] | BoolArray) -> "LabelledRows":
        """Return some of the rows."""
        return replace(
            self,
            features=self.features[rows],
            right=self.right[rows],
            kind=self.kind[rows],
            label=self.label[rows],
        )

    def dealt(self, parts: int, rng: np.random.Generator) -> IntArray:
        """Deal the rows to parts at random [N], right, wrong and unknown ones evenly."""
        outcome = np.where(self.known, self.right.astype(np.int64), 2)
        order = np.lexsort((rng.permutation(len(self)), outcome))
        part = np.empty(len(self), dtype=np.int64)
        part[order] = np.arange(len(self)) % parts
        return part

    def columns(self, names: Sequence[str]) -> IntArray:
        """Return the indices of those of these features that the rows have, in their order."""
        place = {name: column for column, name in enumerate(self.names)}
        return np.array([place[name] for name in names if name in place], dtype=np.int64)
