"""What detectors read of some predictions, and the layer that made the logits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from gradscore.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Observations:
    """N predictions.

    Attributes
    ----------
    logits
        float64 [N, q].
    label
        The predicted class, int64 [N].
    vector
        The input of the dense layer that makes the logits, float64 [N, D]; None where the model has no such layer.
    pooled
        Inputs of layers, each as its means over all positions: float64 [N, C] by the name of the layer.
    """

    logits: FloatArray
    label: IntArray
    vector: FloatArray | None = None
    pooled: Mapping[str, FloatArray] = field(default_factory=lambda: MappingProxyType({}))

    def __len__(self) -> int:
        return len(self.label)

    @property
    def classes(self) -> int:
        """Number of classes q."""
        return int(self.logits.shape[1])

    def rows(self, which: NDArray[np.bool_] | IntArray | slice) -> "Observations":
        """Return some of the predictions."""
        vector = None if self.vector is None else self.vector[which]
        return Observations(
            self.logits[which], self.label[which], vector, {name: one[which] for name, one in self.pooled.items()}
        )

    def finite(self) -> "Observations":
        """Return the predictions of which everything is finite."""
        parts = [one for one in (self.logits, self.vector, *self.pooled.values()) if one is not None]
        whole: NDArray[np.bool_] = np.asarray(np.isfinite(np.concatenate(parts, axis=1)).all(axis=1))
        return self if whole.all() else self.rows(whole)

    def check(self) -> None:
        """Check that the arrays fit one another.

        Raises
        ------
        InputError
            They differ in their number of rows, are not matrices, or a label is no class.
        """
        matrices = {"logits": self.logits, "vector": self.vector, **self.pooled}
        for name, one in matrices.items():
            if one is not None and (one.ndim != 2 or len(one) != len(self.label)):
                raise InputError(f"{name} has the shape {one.shape}, not one row for each of {len(self.label)} labels")
        if len(self) and not (self.label.min() >= 0 and self.label.max() < self.classes):
            raise InputError(f"a label is none of the {self.classes} classes")


@dataclass(frozen=True)
class LastLayer:
    """The dense layer that makes the logits: weight float64 [q, D] and bias float64 [q]."""

    weight: FloatArray
    bias: FloatArray

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1]:
            raise InputError(
                f"a head has a weight [q, D] and a bias [q], not {self.weight.shape} and {self.bias.shape}"
            )
