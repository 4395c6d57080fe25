"""Detectors that read the logits alone. z are the logits, p is their softmax, ŷ is the predicted label."""

from types import MappingProxyType
from typing import Any

import numpy as np

from gradscore.detectors.arithmetic import Values, at, chosen, complement, largest, log_sum_exp, residual, softmax
from gradscore.detectors.detector import Arrays, Detector, Seen
from gradscore.detectors.observations import Observations

_TINIEST = 1e-300  # of a probability whose logarithm is taken


class MaxSoftmax(Detector):
    """Minus the residual, p_ŷ − 1: the order of the maximum softmax, also where p_ŷ rounds to 1.

    Hendrycks and Gimpel 2017, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks".
    """

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002 - one signature for all
        """Return p_ŷ − 1."""
        return -residual(seen.logits, seen.label, seen.classes)


class Entropy(Detector):
    """Minus the entropy of the softmax, Σ p log p. Its classical source is Shannon 1948."""

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return Σ p log p, with log p = z − log Σ exp z, and log(1 − residual) for the predicted class."""
        return (softmax(seen.logits) * _log_softmax(seen.logits)).sum(axis=1)


class MaxLogit(Detector):
    """The logit of ŷ (MLS).

    Hendrycks et al. 2022, "Scaling Out-of-Distribution Detection for Real-World Settings".
    """

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return z_ŷ."""
        return at(seen.logits, seen.label)


class Energy(Detector):
    """The negative free energy T·log Σ exp(z/T).

    Liu et al. 2020, "Energy-based Out-of-distribution Detection", equation 4.
    """

    def __init__(self, name: str, temperature: float = 1.0) -> None:
        super().__init__(name)
        self.temperature = temperature

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return T·log Σ exp(z/T)."""
        return log_sum_exp(seen.logits / self.temperature) * self.temperature


class GeneralisedEntropy(Detector):
    """GEN: minus the generalised entropy Σ p^γ (1 − p)^γ over the M most probable classes.

    Liu, Lochman and Zach 2023, "GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection", equation 2, with the
    paper's γ = 0.1 and M = 100.
    """

    def __init__(self, name: str, exponent: float = 0.1, most: int = 100) -> None:
        super().__init__(name)
        self.exponent = exponent
        self.most = most

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return −Σ (p (1 − p))^γ."""
        p = softmax(seen.logits)
        products = p * complement(seen.logits, p, seen.label, seen.classes)
        if self.most < seen.classes:
            products = chosen(products, largest(p, self.most))
        return -np.power(products, self.exponent).sum(axis=1)


class KLMatching(Detector):
    """Minus the smallest KL(p ‖ d_c), where d_c is the mean softmax of the known rows that are predicted as class c.

    Hendrycks et al. 2022, "Scaling Out-of-Distribution Detection for Real-World Settings".
    """

    shapes = MappingProxyType({"log_means": "cq"})

    def learned(self, known: Observations, head: Any) -> Arrays:  # noqa: ARG002
        """Return log d_c of the classes that have rows."""
        p = softmax(known.logits)
        means = np.stack([p[known.label == c].mean(axis=0) for c in np.unique(known.label)])
        return {"log_means": np.log(np.maximum(means, _TINIEST))}

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return −min Σ p (log p − log d)."""
        p = softmax(seen.logits)
        own = (p * _log_softmax(seen.logits)).sum(axis=1, keepdims=True)
        return -(own - p @ reference["log_means"].T).min(axis=1)


def _log_softmax(z: Values) -> Values:
    top = z.max(axis=1, keepdims=True)
    return z - top - np.log(np.exp(z - top).sum(axis=1, keepdims=True))
