"""Extra features from the inputs of layers: their statistics, their means over positions, and the last one as it is."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import gradscore_kernels as kernels
import numpy as np
from numpy.typing import NDArray

from gradscore.errors import ModelError
from gradscore.model.layer_table import Layer, Reduction
from gradscore.model.metadata import ACTIVATION, LAYER_STATISTICS, ModelMetadata
from gradscore.scoring.extra_feature import ExtraFeature, FloatArray, Pass
from gradscore.scoring.layer_statistics import reduce

WIDEST = 256  # numbers of one pooled input; wider ones are projected
DEPTHS = 3  # inputs that are pooled: one early, one in the middle, and the last


class Activations(ExtraFeature):
    """The eight statistics of each layer's input a, over all its positions and channels.

    In the gradient δaᵀ, a is the factor that does not depend on the label. Oberdiek et al. 2018 leave it to future work.
    Padding does not count. A layer with several kernels, such as a recurrent one, has the inputs of all of them, each once.
    Embeddings, norms and single parameters have no such input.
    """

    name = "activations"

    def columns(self, model: ModelMetadata) -> tuple[str, ...]:
        """Return `<layer>.activation.<statistic>` of each layer that has activations."""
        names = [layer.name for layer in model.layers if _inputs_of(layer)]
        if not names:
            raise ModelError("no layer of this model has activations as its input: leave activations out of --features")
        return tuple(f"{name}.{ACTIVATION}.{statistic}" for name in names for statistic in LAYER_STATISTICS)

    def compute(self, batch: Pass) -> FloatArray:
        """Return the statistics; an input that several layers share is reduced once."""
        layers = [values for layer in batch.model.layers if (values := _inputs_of(layer))]
        moments = {
            value: reduce(Reduction("direct", delta=value), batch.signals, backend=batch.backend, threads=batch.threads)
            for value in dict.fromkeys(value for values in layers for value in values)
        }
        statistics = [kernels.statistics(kernels.merge([moments[value] for value in values])) for values in layers]
        return np.concatenate(statistics, axis=1)


@dataclass(frozen=True)
class Depth:
    """The input of one layer: the graph value [B, C, ...] (or [B, ..., C]), and its number of channels C."""

    layer: str
    value: str
    width: int
    channels_first: bool


class Pooled(ExtraFeature):
    """The inputs of three layers, an early one, one in the middle and the last, each as its means over all positions.

    Distances between such vectors tell what is unusual (Lee et al. 2018, "A Simple Unified Framework for Detecting
    Out-of-Distribution Samples and Adversarial Attacks", which pools each layer in this way). More than 256 channels are
    projected to 256 numbers by random signs, which keep distances (Achlioptas 2003, "Database-friendly random projections").
    """

    name = "pooled"

    def columns(self, model: ModelMetadata) -> tuple[str, ...]:
        """Return `<layer>.pooled.<number>` for each number of each chosen layer."""
        chosen = chosen_depths(model)
        return tuple(f"{one.layer}.{self.name}.{i}" for one in chosen for i in range(min(one.width, WIDEST)))

    def compute(self, batch: Pass) -> FloatArray:
        """Return the means."""
        chosen = chosen_depths(batch.model)
        return np.concatenate([pooled_means(batch.signals[one.value], one.channels_first) for one in chosen], axis=1)


class Penultimate(ExtraFeature):
    """The input of the dense layer that makes the logits, as it is: the vector that most detectors read."""

    name = "penultimate"

    def columns(self, model: ModelMetadata) -> tuple[str, ...]:
        """Return `penultimate.<number>`; raise ModelError unless one dense layer makes the logits."""
        layer, _ = penultimate_of(model, self.name)
        return tuple(f"{self.name}.{i}" for i in range(_width(layer)))

    def compute(self, batch: Pass) -> FloatArray:
        """Return the vectors."""
        _, last = penultimate_of(batch.model, self.name)
        return np.asarray(batch.signals[str(last.activation)], dtype=np.float64)


def penultimate_of(model: ModelMetadata, feature: str) -> tuple[Layer, Reduction]:
    """Return the dense layer that makes the logits, and its reduction: its output gradient is the seed.

    Raises
    ------
    ModelError
        No single dense layer makes the logits; `feature`, named in the message, needs one.
    """
    made = [(layer, item) for layer in model.layers for item in layer.reductions if item.delta == model.seed]
    dense = [(layer, item) for layer, item in made if item.activation is not None]
    if len(dense) != 1 or dense[0][1].kernel != "outer":
        raise ModelError(
            f"{feature} needs one dense layer, at one position, that makes the logits; this model's come from elsewhere (its "
            f"last layer: {model.layers[-1].name}, {model.layers[-1].op}). Leave {feature} out of --features"
        )
    return dense[0]


def chosen_depths(model: ModelMetadata) -> tuple[Depth, ...]:
    """Return the inputs of an early, a middle and the last layer that multiply one input with weights.

    Raises
    ------
    ModelError
        The model has no such layer.
    """
    by_value: dict[str, Depth] = {}
    for one in filter(None, map(_depth, model.layers)):
        by_value.setdefault(one.value, one)
    found = list(by_value.values())
    if not found:
        raise ModelError("no layer of this model multiplies its input with weights: leave pooled out of --features")
    places = np.linspace(0, len(found) - 1, DEPTHS + 1)[1:].round().astype(int).tolist()
    return tuple(found[place] for place in dict.fromkeys(places))


def _depth(layer: Layer) -> Depth | None:
    """Return a layer's input, if it has one and its weight tells its number of channels."""
    values, width = _inputs_of(layer), _width(layer)
    return Depth(layer.name, values[0], width, "Conv" in layer.op) if len(values) == 1 and width else None


def _inputs_of(layer: Layer) -> tuple[str, ...]:
    """Return the graph values that a layer's kernels multiply with δ.

    In a transposed convolution, input and δ have swapped roles.
    """
    kernels_of = [item for item in layer.reductions if kernels.KERNELS[item.kernel].takes_activation]
    values = [item.delta if layer.op == "ConvTranspose" else str(item.activation) for item in kernels_of]
    return tuple(dict.fromkeys(values))


def _width(layer: Layer) -> int:
    """Return the number of channels of a layer's input, or 0 if its weight does not tell."""
    item = next((item for item in layer.reductions if kernels.KERNELS[item.kernel].takes_activation), None)
    weight = next((one.shape for one in layer.parameters if len(one.shape) > 1), ())
    if item is None or not weight:
        return 0
    attributes = item.attributes or {}
    if item.kernel in ("conv", "unpooled_conv"):
        groups = int(attributes.get("geometry", attributes)["groups"])
        return weight[0] if layer.op == "ConvTranspose" else weight[1] * groups
    if len(weight) > 2:
        return 0
    return weight[1] if attributes.get("outputs_first") else weight[0]


def pooled_means(values: NDArray[Any], channels_first: bool) -> FloatArray:
    """Return the means over all positions, float64 [B, C], or [B, 256] if there are more channels."""
    positions = tuple(range(2, values.ndim)) if channels_first else tuple(range(1, values.ndim - 1))
    means = np.asarray(values.mean(axis=positions), dtype=np.float64)
    return means if means.shape[1] <= WIDEST else means @ projection(means.shape[1])


@cache
def projection(width: int) -> FloatArray:
    """Return random signs over √256, float64 [width, 256]: the same for each width, on every machine."""
    signs = np.random.default_rng(width).integers(0, 2, (width, WIDEST)) * 2 - 1
    return np.asarray(signs / np.sqrt(WIDEST))
