"""The columns that tell how unusual an input is at each depth of the classifier, on comparable scales.

Three kinds of columns are looked at: the gradient's statistics of each layer, those of each layer's input (extra feature
`activations`), and pooled inputs of layers (`pooled`). What the table does not have is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradscore.model.metadata import ACTIVATION, LAYER_STATISTICS
from gradscore.verdict.learning.classifiers.noise import telling
from gradscore.verdict.learning.rows import LabelledRows
from gradscore.verdict.learning.transforms import LARGEST, SignedLog, Standard
from gradscore.verdict.learning.verdict_nodes import VerdictNodes

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

POOLED = "pooled"
LEAST_LENGTH = 1e-12


@dataclass(frozen=True, eq=False)
class Scaled:
    """LabelledRows on comparable scales.

    Attributes
    ----------
    statistics : float64 [N, D]
        Standardised logarithms of the statistics of all layers.
    pooled : tuple of float64 [N, K]
        Standardised pooled inputs of each layer.
    directions : tuple of float64 [N, K]
        The same, not standardised, but each row scaled to length 1.
    """

    statistics: FloatArray
    pooled: tuple[FloatArray, ...]
    directions: tuple[FloatArray, ...]

    def take(self, rows: npt.NDArray[np.bool_]) -> "Scaled":
        """Return some of the rows."""
        pooled, directions = (tuple(one[rows] for one in part) for part in (self.pooled, self.directions))
        return Scaled(self.statistics[rows], pooled, directions)


@dataclass(frozen=True)
class ScaledNames:
    """Names of the graph values that hold the same."""

    statistics: str
    pooled: tuple[str, ...]
    directions: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Depths:
    """The scales of columns, learned from right predictions.

    Attributes
    ----------
    statistics
        Transform of the statistics of all layers.
    groups
        For each layer's gradient and input, the columns of the transformed statistics that belong to it.
    pooled
        Transform of the pooled inputs of each layer.
    """

    statistics: SignedLog
    groups: tuple[IntArray, ...]
    pooled: tuple[Standard, ...]

    @classmethod
    def fit(cls, right: LabelledRows) -> "Depths":
        """Learn the scales."""
        layers = [telling(layer, right.features, right.names) for layer in layer_groups(right.names)]
        statistics = SignedLog.fit(right.features, np.concatenate(layers))
        groups = (np.flatnonzero(np.isin(statistics.columns, layer)) for layer in layers)
        pooled = tuple(Standard.fit(right.features, group) for group in pooled_groups(right.names))
        return cls(statistics, tuple(group for group in groups if len(group)), pooled)

    def __call__(self, features: FloatArray) -> Scaled:
        """Scale rows [N, F]."""
        directions = tuple(_unit(features[:, one.columns]) for one in self.pooled)
        return Scaled(self.statistics(features), tuple(one(features) for one in self.pooled), directions)

    def emit(self, emit: VerdictNodes, features: str) -> ScaledNames:
        """Write the same arithmetic as ONNX nodes."""
        statistics = self.statistics.emit(emit, features)
        pooled = tuple(one.emit(emit, features) for one in self.pooled)
        return ScaledNames(statistics, pooled, tuple(_emit_unit(emit, features, one.columns) for one in self.pooled))


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
    groups = layer_groups(names)
    of_gradients = [group for group in groups if not names[group[0]].rpartition(".")[0].endswith(f".{ACTIVATION}")]
    return np.concatenate([*of_gradients, np.empty(0, dtype=np.int64)])


def pooled_groups(names: Sequence[str]) -> list[IntArray]:
    """Return the columns of each pooled layer."""
    groups: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        layer, kind, _ = [*name.rsplit(".", 2), "", ""][:3]
        if kind == POOLED:
            groups.setdefault(layer, []).append(column)
    return [np.array(columns, dtype=np.int64) for columns in groups.values()]


def _unit(x: FloatArray) -> FloatArray:
    inside = np.clip(x, -LARGEST, LARGEST)
    return np.asarray(inside / np.maximum(np.linalg.norm(inside, axis=1, keepdims=True), LEAST_LENGTH))


def _emit_unit(emit: VerdictNodes, features: str, columns: IntArray) -> str:
    vectors = emit.clipped(emit("Gather", features, columns, axis=1), LARGEST)
    length = emit("Sqrt", emit("ReduceSum", emit("Mul", vectors, vectors), np.array([1]), keepdims=1))
    return emit("Div", vectors, emit("Max", length, np.float64(LEAST_LENGTH)))
