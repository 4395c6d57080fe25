"""Extra features from the same pass: published confidence scores, and statistics of the layers' inputs.

Each feature is one small object in `EXTRA_FEATURES`. Its columns stand after those of the head, in the order of that table.
z are the logits and ŷ is the predicted label. For `max_logit`, `energy`, `margin` and `gradnorm`, larger means more
confident.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import gradscore_kernels as kernels
import numpy as np
from numpy.typing import NDArray

from gradscore.errors import InputError, ModelError
from gradscore.model.layer_table import Layer, Reduction
from gradscore.model.metadata import ACTIVATION, LAYER_STATISTICS, ModelMetadata
from gradscore.scoring.layer_statistics import Signals, reduce

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


@dataclass(frozen=True)
class LogitScore(ExtraFeature):
    """A function of logits [B, q] and labels [B], in float64."""

    name: str
    score: Callable[[FloatArray, IntArray], FloatArray]
    reads_layers = False

    def columns(self, model: ModelMetadata) -> tuple[str, ...]:  # noqa: ARG002 - every model has logits
        """Return the name."""
        return (self.name,)

    def compute(self, batch: Pass) -> FloatArray:
        """Return the function's values."""
        with np.errstate(invalid="ignore"):  # NaN and infinite logits give NaN, in their own row
            return self.score(batch.logits, batch.labels)[:, None]


def max_logit(logits: FloatArray, labels: IntArray) -> FloatArray:
    """Return the largest logit z_ŷ [B].

    Hendrycks et al. 2022, "Scaling Out-of-Distribution Detection for Real-World Settings".
    """
    return logits[np.arange(len(logits)), labels]


def energy(logits: FloatArray, _labels: IntArray) -> FloatArray:
    """Return the negative free energy log Σ exp z [B], at temperature 1.

    Liu et al. 2020, "Energy-based Out-of-distribution Detection".
    """
    top = logits.max(axis=1, keepdims=True)
    return np.asarray(top[:, 0] + np.log(np.exp(logits - top).sum(axis=1)))


def margin(logits: FloatArray, labels: IntArray) -> FloatArray:
    """Return the difference of z_ŷ and the largest other logit [B]: log p_ŷ − log p of the second class.

    The multiclass margin of Crammer and Singer 2001, "On the Algorithmic Implementation of Multiclass Kernel-based Vector
    Machines", at the predicted label. The margin of probabilities has the same sign, but ties when they round to 1.
    """
    rows, others = np.arange(len(logits)), logits.copy()
    others[rows, labels] = -np.inf
    return np.asarray(logits[rows, labels] - others.max(axis=1))


class GradNorm(ExtraFeature):
    """L1 norm of the gradient of KL(uniform ‖ softmax(z)) with respect to the last layer's weight, at temperature 1.

    Huang, Geng and Li 2021, "On the Importance of Gradients for Detecting Distributional Shifts in the Wild". The gradient
    with respect to the logits is p − 1/q. So with the layer's input a, the norm is Σ|a| · Σ|p − 1/q|: the paper's U·V/q.
    The bias does not count.
    """

    name = "gradnorm"

    def columns(self, model: ModelMetadata) -> tuple[str, ...]:
        """Return the name; raise ModelError unless one dense layer makes the logits."""
        self._last(model)
        return (self.name,)

    def compute(self, batch: Pass) -> FloatArray:
        """Return the norm."""
        logits = batch.logits
        with np.errstate(invalid="ignore"):
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            distance = np.abs(weights / weights.sum(axis=1, keepdims=True) - 1 / logits.shape[1]).sum(axis=1)
        size = np.abs(batch.signals[str(self._last(batch.model).activation)]).sum(axis=1, dtype=np.float64)
        return np.asarray(size * distance)[:, None]

    @staticmethod
    def _last(model: ModelMetadata) -> Reduction:
        """Return the reduction of the dense layer that makes the logits: its output gradient is the seed."""
        made = [item for layer in model.layers for item in layer.reductions if item.delta == model.seed]
        dense = [item for item in made if item.activation is not None]
        if len(dense) != 1 or dense[0].kernel != "outer":
            raise ModelError(
                "gradnorm is the gradient of one dense layer, at one position, that makes the logits; this model's come "
                f"from elsewhere (its last layer: {model.layers[-1].name}, {model.layers[-1].op}). Leave gradnorm out of "
                "--features"
            )
        return dense[0]


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


EXTRA_FEATURES: Mapping[str, ExtraFeature] = MappingProxyType(
    {
        extra.name: extra
        for extra in (
            LogitScore("max_logit", max_logit),
            LogitScore("energy", energy),
            LogitScore("margin", margin),
            GradNorm(),
            Activations(),
        )
    }
)
"""The names for `--features` and `Scorer.load(features=…)`, in the order of their columns."""


def extras_named(names: Sequence[str]) -> tuple[ExtraFeature, ...]:
    """Return the extra features with these names, each once, in the order of the table.

    Raises
    ------
    InputError
        A name is not in the table.
    """
    if unknown := [name for name in names if name not in EXTRA_FEATURES]:
        raise InputError(f"there is no extra feature {unknown[0]!r}: --features takes {', '.join(EXTRA_FEATURES)}")
    return tuple(extra for name, extra in EXTRA_FEATURES.items() if name in names)


def _inputs_of(layer: Layer) -> tuple[str, ...]:
    """Return the graph values that a layer's kernels multiply with δ.

    In a transposed convolution, input and δ have swapped roles.
    """
    kernels_of = [item for item in layer.reductions if kernels.KERNELS[item.kernel].takes_activation]
    values = [item.delta if layer.op == "ConvTranspose" else str(item.activation) for item in kernels_of]
    return tuple(dict.fromkeys(values))
