"""Inputs of a scoring model's layers: which graph values they are, and how the features made of them are called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import gradscore_kernels as kernels
import numpy as np
from numpy.typing import NDArray

from gradscore.errors import ModelError
from gradscore.model.layer_table import Layer, Reduction
from gradscore.model.metadata import ACTIVATION, LAYER_STATISTICS, ModelMetadata

WIDEST = 256  # numbers of one pooled input; wider ones are projected
DEPTHS = 3  # inputs that are pooled: one early, one in the middle, and the last


@dataclass(frozen=True)
class Depth:
    """The input of one layer: the graph value [B, C, ...] (or [B, ..., C]), and its number of channels C."""

    layer: str
    value: str
    width: int
    channels_first: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its pooled numbers."""
        return tuple(f"{self.layer}.pooled.{i}" for i in range(min(self.width, WIDEST)))


def positions_of(rank: int, channels_first: bool) -> tuple[int, ...]:
    """Return the axes of a layer's input that count positions."""
    return tuple(range(2, rank)) if channels_first else tuple(range(1, rank - 1))


def inputs_of(layer: Layer) -> tuple[str, ...]:
    """Return the graph values that a layer's kernels multiply with δ.

    In a transposed convolution, input and δ have swapped roles.
    """
    kernels_of = [item for item in layer.reductions if kernels.KERNELS[item.kernel].takes_activation]
    values = [item.delta if layer.op == "ConvTranspose" else str(item.activation) for item in kernels_of]
    return tuple(dict.fromkeys(values))


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


@cache
def projection(width: int) -> NDArray[np.float64]:
    """Return random signs over √256, float64 [width, 256]: the same for each width, on every machine."""
    signs = np.random.default_rng(width).integers(0, 2, (width, WIDEST)) * 2 - 1
    return np.asarray(signs / np.sqrt(WIDEST))


def activation_names(model: ModelMetadata) -> tuple[str, ...]:
    """Return `<layer>.activation.<statistic>` of each layer that has activations; raise ModelError if there is none."""
    names = [layer.name for layer in model.layers if inputs_of(layer)]
    if not names:
        raise ModelError("no layer of this model has activations as its input: leave activations out of --features")
    return tuple(f"{name}.{ACTIVATION}.{statistic}" for name in names for statistic in LAYER_STATISTICS)


def pooled_names(model: ModelMetadata) -> tuple[str, ...]:
    """Return `<layer>.pooled.<number>` for each number of each chosen layer; raise ModelError if there is none."""
    return tuple(name for one in chosen_depths(model) for name in one.columns)


def penultimate_names(model: ModelMetadata) -> tuple[str, ...]:
    """Return `penultimate.<number>`; raise ModelError unless one dense layer makes the logits."""
    layer, _ = penultimate_of(model, "penultimate")
    return tuple(f"penultimate.{i}" for i in range(_width(layer)))


def gradnorm_names(model: ModelMetadata) -> tuple[str, ...]:
    """Return the name; raise ModelError unless one dense layer makes the logits."""
    penultimate_of(model, "gradnorm")
    return ("gradnorm",)


def logit_names(model: ModelMetadata) -> tuple[str, ...]:
    """Return `logits.<class>` for the index of each class."""
    return tuple(f"logits.{index}" for index in range(model.classes))


NAMES_OF: Mapping[str, Callable[[ModelMetadata], tuple[str, ...]]] = MappingProxyType(
    {
        "gradnorm": gradnorm_names,
        "activations": activation_names,
        "pooled": pooled_names,
        "penultimate": penultimate_names,
        "logits": logit_names,
    }
)
"""Names of the columns of extra features that a graph can compute as well as the kernels."""


def columns_by_feature(model: ModelMetadata) -> dict[str, tuple[str, ...]]:
    """Return the columns of each extra feature of `NAMES_OF` that this model can have."""
    found = {}
    for feature, names in NAMES_OF.items():
        try:
            found[feature] = names(model)
        except ModelError:
            continue
    return found


def _depth(layer: Layer) -> Depth | None:
    """Return a layer's input, if it has one and its weight tells its number of channels."""
    values, width = inputs_of(layer), _width(layer)
    return Depth(layer.name, values[0], width, "Conv" in layer.op) if len(values) == 1 and width else None


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
