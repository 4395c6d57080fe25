"""Published confidence scores of the logits and the last layer. Larger means more confident.

z are the logits and ŷ is the predicted label.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gradscore.model.layer_inputs import gradnorm_names, logit_names, penultimate_of
from gradscore.model.metadata import ModelMetadata
from gradscore.scoring.extra_feature import ExtraFeature, FloatArray, IntArray, Pass


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


LOGIT_SCORES = (LogitScore("max_logit", max_logit), LogitScore("energy", energy), LogitScore("margin", margin))
"""Scores of the logits alone, in the order of their columns."""


class GradNorm(ExtraFeature):
    """L1 norm of the gradient of KL(uniform ‖ softmax(z)) with respect to the last layer's weight, at temperature 1.

    Huang, Geng and Li 2021, "On the Importance of Gradients for Detecting Distributional Shifts in the Wild". The gradient
    with respect to the logits is p − 1/q. So with the layer's input a, the norm is Σ|a| · Σ|p − 1/q|: the paper's U·V/q.
    The bias does not count.
    """

    name = "gradnorm"

    def columns(self, model: ModelMetadata) -> tuple[str, ...]:
        """Return the name; raise ModelError unless one dense layer makes the logits."""
        return gradnorm_names(model)

    def compute(self, batch: Pass) -> FloatArray:
        """Return the norm."""
        logits = batch.logits
        with np.errstate(invalid="ignore"):
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            distance = np.abs(weights / weights.sum(axis=1, keepdims=True) - 1 / logits.shape[1]).sum(axis=1)
        _, last = penultimate_of(batch.model, self.name)
        size = np.abs(batch.signals[str(last.activation)]).sum(axis=1, dtype=np.float64)
        return np.asarray(size * distance)[:, None]


class Logits(ExtraFeature):
    """The logits as they are: what temperature scaling and most detectors of the head read."""

    name = "logits"
    reads_layers = False

    def columns(self, model: ModelMetadata) -> tuple[str, ...]:
        """Return `logits.<class>` for the index of each class."""
        return logit_names(model)

    def compute(self, batch: Pass) -> FloatArray:
        """Return the logits, float64 [B, q]."""
        return batch.logits
