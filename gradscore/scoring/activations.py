"""Extra features from the inputs of layers: their statistics, their means over positions, and the last one as it is."""

from typing import Any

import gradscore_kernels as kernels
import numpy as np
from numpy.typing import NDArray

from gradscore.model.layer_inputs import (
    WIDEST,
    Depth,
    activation_names,
    chosen_depths,
    inputs_of,
    penultimate_names,
    penultimate_of,
    pooled_names,
    positions_of,
    projection,
)
from gradscore.model.layer_table import Reduction
from gradscore.model.metadata import ModelMetadata
from gradscore.scoring.extra_feature import ExtraFeature, FloatArray, Pass
from gradscore.scoring.layer_statistics import reduce

__all__ = [
    "Activations",
    "Depth",
    "Penultimate",
    "Pooled",
    "chosen_depths",
    "penultimate_of",
    "pooled_means",
    "projection",
]


class Activations(ExtraFeature):
    """The eight statistics of each layer's input a, over all its positions and channels.

    In the gradient δaᵀ, a is the factor that does not depend on the label. Oberdiek et al. 2018 leave it to future work.
    Padding does not count. A layer with several kernels, such as a recurrent one, has the inputs of all of them, each once.
    Embeddings, norms and single parameters have no such input.
    """

    name = "activations"

    def columns(self, model: ModelMetadata) -> tuple[str, ...]:
        """Return `<layer>.activation.<statistic>` of each layer that has activations."""
        return activation_names(model)

    def compute(self, batch: Pass) -> FloatArray:
        """Return the statistics; an input that several layers share is reduced once."""
        layers = [values for layer in batch.model.layers if (values := inputs_of(layer))]
        moments = {
            value: reduce(Reduction("direct", delta=value), batch.signals, backend=batch.backend, threads=batch.threads)
            for value in dict.fromkeys(value for values in layers for value in values)
        }
        statistics = [kernels.statistics(kernels.merge([moments[value] for value in values])) for values in layers]
        return np.concatenate(statistics, axis=1)


class Pooled(ExtraFeature):
    """The inputs of three layers, an early one, one in the middle and the last, each as its means over all positions.

    Distances between such vectors tell what is unusual (Lee et al. 2018, "A Simple Unified Framework for Detecting
    Out-of-Distribution Samples and Adversarial Attacks", which pools each layer in this way). More than 256 channels are
    projected to 256 numbers by random signs, which keep distances (Achlioptas 2003, "Database-friendly random projections").
    """

    name = "pooled"

    def columns(self, model: ModelMetadata) -> tuple[str, ...]:
        """Return `<layer>.pooled.<number>` for each number of each chosen layer."""
        return pooled_names(model)

    def compute(self, batch: Pass) -> FloatArray:
        """Return the means."""
        chosen = chosen_depths(batch.model)
        return np.concatenate([pooled_means(batch.signals[one.value], one.channels_first) for one in chosen], axis=1)


class Penultimate(ExtraFeature):
    """The input of the dense layer that makes the logits, as it is: the vector that most detectors read."""

    name = "penultimate"

    def columns(self, model: ModelMetadata) -> tuple[str, ...]:
        """Return `penultimate.<number>`; raise ModelError unless one dense layer makes the logits."""
        return penultimate_names(model)

    def compute(self, batch: Pass) -> FloatArray:
        """Return the vectors."""
        _, last = penultimate_of(batch.model, self.name)
        return np.asarray(batch.signals[str(last.activation)], dtype=np.float64)


def pooled_means(values: NDArray[Any], channels_first: bool) -> FloatArray:
    """Return the means over all positions, float64 [B, C], or [B, 256] if there are more channels."""
    means = np.asarray(values.mean(axis=positions_of(values.ndim, channels_first)), dtype=np.float64)
    return means if means.shape[1] <= WIDEST else means @ projection(means.shape[1])
