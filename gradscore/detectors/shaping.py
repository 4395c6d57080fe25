"""Detectors that change the vector or the weight of the last layer, and take the energy of the logits that come out.

a is the input of the dense layer that makes the logits, W and b are its weight and bias.
"""

from abc import abstractmethod
from types import MappingProxyType
from typing import Any

import numpy as np

from gradscore.detectors.arithmetic import Values, chosen, column, largest, log_sum_exp, replaced, where
from gradscore.detectors.detector import Arrays, Detector, Seen
from gradscore.detectors.observations import LastLayer, Observations

_LARGEST_EXPONENT = 100.0  # of a scale; features after a ReLU stay far below


class ReAct(Detector):
    """Energy of the logits of min(a, c); c is a percentile of all numbers in the known vectors.

    Sun, Guo and Li 2021, "ReAct: Out-of-distribution Detection With Rectified Activations", equations 2 and 3.
    """

    reads_vector = reads_head = True
    shapes = MappingProxyType({"threshold": "1"})

    def __init__(self, name: str, percentile: float = 0.9) -> None:
        super().__init__(name)
        self.percentile = percentile

    def learned(self, known: Observations, head: Any) -> Arrays:  # noqa: ARG002 - one signature for all
        """Return c."""
        return {"threshold": np.quantile(_vectors(known), [self.percentile])}

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:
        """Return log Σ exp(W min(a, c) + b)."""
        return _energy(np.minimum(seen.vector, reference["threshold"]), head)


class Shaping(Detector):
    """ASH: energy of the logits of a vector of which only the largest numbers stay.

    Djurisic et al. 2023, "Extremely Simple Activation Shaping for Out-of-Distribution Detection". `percentile` of the numbers
    go to 0. Of equal numbers, the first ones stay.
    """

    reads_vector = reads_head = True

    def __init__(self, name: str, percentile: float) -> None:
        super().__init__(name)
        self.percentile = percentile

    def formula(self, seen: Seen, head: LastLayer, reference: Arrays) -> Values:  # noqa: ARG002
        """Return the energy of the shaped vector."""
        width = head.weight.shape[1]
        return _energy(self.shaped(seen.vector, max(1, width - round(width * self.percentile))), head)

    @abstractmethod
    def shaped(self, a: Values, kept: int) -> Values:
        """Return the vector of which the `kept` largest numbers stay."""


class ShapingP(Shaping):
    """ASH-P: the other numbers do not change."""

    def shaped(self, a: Values, kept: int) -> Values:
        """Return a, pruned."""
        places = largest(a, kept)
        return replaced(a * 0.0, places, chosen(a, places))


class ShapingB(Shaping):
    """ASH-B: each of the numbers that stay becomes Σa over their count."""

    def shaped(self, a: Values, kept: int) -> Values:
        """Return a, binarised."""
        places = largest(a, kept)
        return replaced(a * 0.0, places, chosen(a, places) * 0.0 + a.sum(axis=1, keepdims=True) / kept)


class ShapingS(Shaping):
    """ASH-S: the numbers that stay are scaled by exp(Σa / Σ of those)."""

    def shaped(self, a: Values, kept: int) -> Values:
        """Return a, pruned and scaled."""
        places = largest(a, kept)
        return replaced(a * 0.0, places, chosen(a, places)) * _scale(a, chosen(a, places))


class ActivationScale(Shaping):
    """SCALE: all numbers are scaled by exp(Σa / Σ of the largest), and none goes to 0.

    Xu et al. 2024, "Scaling for Training Time and Post-hoc Out-of-distribution Detection Enhancement", equation 8.
    """

    def shaped(self, a: Values, kept: int) -> Values:
        """Return a, scaled."""
        return a * _scale(a, chosen(a, largest(a, kept)))


class Dice(Detector):
    """DICE: energy of the logits with the largest contributions alone: the weights whose W ∘ mean(a) exceeds a percentile.

    Sun and Li 2022, "DICE: Leveraging Sparsification for Out-of-Distribution Detection", section 3.
    """

    reads_vector = reads_head = True
    shapes = MappingProxyType({"weight": "qD"})

    def __init__(self, name: str, percentile: float = 0.9) -> None:
        super().__init__(name)
        self.percentile = percentile

    def learned(self, known: Observations, head: LastLayer) -> Arrays:
        """Return the weight, with 0 where a contribution is small."""
        contribution = head.weight * _vectors(known).mean(axis=0)
        return {"weight": np.where(contribution > np.quantile(contribution, self.percentile), head.weight, 0.0)}

    def formula(self, seen: Seen, head: LastLayer, reference: Arrays) -> Values:
        """Return log Σ exp(M ∘ W a + b)."""
        return _energy(seen.vector, LastLayer(reference["weight"], head.bias))


def _energy(a: Values, head: LastLayer) -> Values:
    return log_sum_exp(a @ head.weight.T + head.bias)


def _scale(a: Values, kept: Values) -> Values:
    """Return exp(Σa / Σkept) as a column; 1 where the numbers that stay are all 0."""
    below = kept.sum(axis=1)
    safe = where(np.equal(below, 0.0), np.inf, below)
    return column(np.exp(np.minimum(a.sum(axis=1) / safe, _LARGEST_EXPONENT)))


def _vectors(known: Observations) -> Any:
    return known.vector
