"""What an extra feature is: columns of the score table beside the gradient's statistics, from the same pass."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradscore.model.metadata import SIGNAL_EXTRA, ModelMetadata
from gradscore.scoring.layer_statistics import Signals

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Pass:
    """One micro-batch after the session: what an extra feature is computed from, and by which kernels."""

    model: ModelMetadata
    signals: Signals
    labels: IntArray
    backend: str
    threads: int | None

    @property
    def logits(self) -> FloatArray:
        """The logits, float64 [B, q]."""
        return np.asarray(self.signals[self.model.logits], dtype=np.float64)


class ExtraFeature(ABC):
    """One entry of `--features`: columns computed from the signals of a scoring model."""

    name: str
    reads_layers = True  # it needs the signals of layers, not only the logits

    @abstractmethod
    def columns(self, model: ModelMetadata) -> tuple[str, ...]:
        """Return the names of the columns; raise ModelError if this model cannot have them."""

    @abstractmethod
    def compute(self, batch: Pass) -> FloatArray:
        """Return float64 [B, columns]."""


class FromSession(ExtraFeature):
    """An extra feature that the session computes itself, with its columns as an output of the graph."""

    reads_layers = False

    def __init__(self, feature: ExtraFeature) -> None:
        self.name = feature.name
        self._feature = feature

    def columns(self, model: ModelMetadata) -> tuple[str, ...]:
        """Return the names of the columns."""
        return self._feature.columns(model)

    def compute(self, batch: Pass) -> FloatArray:
        """Return the session's output."""
        return batch.signals[f"{SIGNAL_EXTRA}/{self.name}"].astype(np.float64)
