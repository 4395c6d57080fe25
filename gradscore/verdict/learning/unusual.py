"""How unusual an input is at each depth of the classifier: log distances to right predictions, from columns of the table.

Three kinds of columns are looked at: the gradient's statistics of each layer, those of each layer's input (extra feature
`activations`), and pooled inputs of layers (`pooled`). What the table does not have is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradscore.model.metadata import ACTIVATION, LAYER_STATISTICS
from gradscore.verdict.learning.distances import Gaussians, Neighbours
from gradscore.verdict.learning.rows import Rows
from gradscore.verdict.learning.transforms import SignedLog, Standard
from gradscore.verdict.learning.verdict_nodes import VerdictNodes

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

POOLED = "pooled"


@dataclass(frozen=True, eq=False)
class Unusual:
    """Log distances [N, M] of features [N, F] to what right predictions have in common.

    Attributes
    ----------
    statistics
        The transform of the statistics of layers.
    layers
        Mahalanobis distances of each layer's statistics, of its gradient and of its input; or None.
    pooled
        For each pooled layer: the standardised columns, their Mahalanobis distance, and the k-th nearest neighbour.
    """

    statistics: SignedLog
    layers: Gaussians | None
    pooled: tuple[tuple[Standard, Gaussians, Neighbours], ...]

    @classmethod
    def fit(cls, right: Rows, seed: int) -> "Unusual":
        """Learn what is usual from right predictions of known inputs."""
        groups = layer_groups(right.names)
        statistics = SignedLog.fit(right.features, np.concatenate(groups))
        places = [np.flatnonzero(np.isin(statistics.columns, group)) for group in groups]
        varies = len(statistics.columns) > 0
        layers = Gaussians.fit(statistics(right.features), places, right.label) if varies else None
        return cls(statistics, layers, tuple(_pooled(right, group, seed) for group in pooled_groups(right.names)))

    def __call__(self, features: FloatArray) -> FloatArray:
        """Return the log distances."""
        parts = [] if self.layers is None else [self.layers(self.statistics(features))]
        for standard, gaussian, near in self.pooled:
            parts += [gaussian(standard(features)), near(features)]
        return np.concatenate(parts, axis=1)

    def emit(self, emit: VerdictNodes, features: str) -> str:
        """Write the same arithmetic as ONNX nodes."""
        parts = [] if self.layers is None else [self.layers.emit(emit, self.statistics.emit(emit, features))]
        for standard, gaussian, near in self.pooled:
            parts += [gaussian.emit(emit, standard.emit(emit, features)), near.emit(emit, features)]
        return emit("Concat", *parts, axis=1)


def layer_groups(names: Sequence[str]) -> list[IntArray]:
    """Return the columns of each layer's gradient statistics and of each layer's input statistics."""
    groups: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        layer, _, statistic = name.rpartition(".")
        if layer and statistic in LAYER_STATISTICS:
            groups.setdefault(layer, []).append(column)
    return [np.array(columns, dtype=np.int64) for columns in groups.values()]


def gradient_columns(names: Sequence[str]) -> IntArray:
    """Return the columns of the gradient's statistics."""
    of_layers = [(column, name.rpartition(".")) for column, name in enumerate(names)]
    return np.array(
        [
            column
            for column, (layer, _, statistic) in of_layers
            if layer and statistic in LAYER_STATISTICS and not layer.endswith(f".{ACTIVATION}")
        ],
        dtype=np.int64,
    )


def pooled_groups(names: Sequence[str]) -> list[IntArray]:
    """Return the columns of each pooled layer."""
    groups: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        layer, kind, _ = [*name.rsplit(".", 2), "", ""][:3]
        if kind == POOLED:
            groups.setdefault(layer, []).append(column)
    return [np.array(columns, dtype=np.int64) for columns in groups.values()]


def _pooled(right: Rows, group: IntArray, seed: int) -> tuple[Standard, Gaussians, Neighbours]:
    standard = Standard.fit(right.features, group)
    every = np.arange(len(standard.columns))
    gaussian = Gaussians.fit(standard(right.features), [every], right.label)
    return standard, gaussian, Neighbours.fit(right.features, standard.columns, seed=seed)
