"""How unusual an input is at each depth of the classifier: log distances to what right predictions have in common."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradscore.verdict.learning.heads.depths import Depths, Scaled, ScaledNames
from gradscore.verdict.learning.heads.distances import Gaussians, Neighbours, class_members
from gradscore.verdict.learning.verdict_nodes import VerdictNodes

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Unusual:
    """Log distances [N, M] of scaled rows.

    Attributes
    ----------
    layers
        Mahalanobis distances of the statistics of each layer's gradient and input; None if no statistic varies.
    pooled
        For each pooled layer, its Mahalanobis distance and its k-th nearest neighbour.
    """

    layers: Gaussians | None
    pooled: tuple[tuple[Gaussians, Neighbours], ...]

    @classmethod
    def fit(cls, depths: Depths, right: Scaled, label: IntArray, seed: int) -> "Unusual":
        """Learn what is usual from right predictions of known inputs, and their classes [N]."""
        members = class_members(label)
        layers = Gaussians.fit(right.statistics, depths.groups, members) if depths.groups else None
        pairs = zip(right.pooled, right.directions, strict=True)
        return cls(layers, tuple((_gaussian(z, members), Neighbours.fit(unit, seed=seed)) for z, unit in pairs))

    def __call__(self, scaled: Scaled) -> FloatArray:
        """Return the log distances."""
        parts = [scaled.statistics if self.layers is None else self.layers(scaled.statistics)]
        for (gaussian, near), z, unit in zip(self.pooled, scaled.pooled, scaled.directions, strict=True):
            parts += [gaussian(z), near(unit)]
        return np.concatenate(parts, axis=1)

    def emit(self, emit: VerdictNodes, scaled: ScaledNames) -> str:
        """Write the same arithmetic as ONNX nodes."""
        parts = [scaled.statistics if self.layers is None else self.layers.emit(emit, scaled.statistics)]
        for (gaussian, near), z, unit in zip(self.pooled, scaled.pooled, scaled.directions, strict=True):
            parts += [gaussian.emit(emit, z), near.emit(emit, unit)]
        return emit("Concat", *parts, axis=1)


def _gaussian(z: FloatArray, members: FloatArray) -> Gaussians:
    return Gaussians.fit(z, (np.arange(z.shape[1]),), members)
