"""Confidences from several predictions for each input: of an ensemble's models, or of one model with active dropout.

Each takes logits float64 [T, N, q] of T models or passes, and returns float64 [N]. Larger means more confident. Lakshminarayanan,
Pritzel and Blundell 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles", average the softmax of
several models; Gal and Ghahramani 2016, "Dropout as a Bayesian Approximation", that of several passes.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from gradscore.detectors.observations import FloatArray
from gradscore.errors import InputError


def mean_softmax(logits: FloatArray) -> FloatArray:
    """Return the largest number of the mean softmax p̄."""
    mean: FloatArray = _softmax(logits).mean(axis=0)
    return np.asarray(mean.max(axis=1))


def predictive_entropy(logits: FloatArray) -> FloatArray:
    """Return minus the entropy of the mean softmax, Σ p̄ log p̄: minus all uncertainty, of the data and of the model."""
    return _minus_entropy(_softmax(logits).mean(axis=0))


def mutual_information(logits: FloatArray) -> FloatArray:
    """Return minus the mutual information of prediction and model, mean Σ p log p less Σ p̄ log p̄, negated.

    Houlsby et al. 2011, "Bayesian Active Learning for Classification and Preference Learning": what the models disagree about,
    without what each of them is unsure of.
    """
    p = _softmax(logits)
    return np.asarray(_minus_entropy(p.mean(axis=0)) - _minus_entropy(p).mean(axis=0))


def agreement(logits: FloatArray) -> FloatArray:
    """Return minus the variance of the softmax over the passes, as an unbiased estimate, averaged over the classes.

    A single pass has no variance: NaN.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        p = _softmax(logits)
        squares = ((p - p.mean(axis=0)) ** 2).sum(axis=0)
        return np.asarray(-(squares / np.float64(len(p) - 1)).mean(axis=1))


PASSES: Mapping[str, Callable[[FloatArray], FloatArray]] = MappingProxyType(
    {
        "mean_softmax": mean_softmax,
        "predictive_entropy": predictive_entropy,
        "mutual_information": mutual_information,
        "agreement": agreement,
    }
)
"""The confidences by name."""


def _softmax(logits: FloatArray) -> FloatArray:
    if logits.ndim != 3 or not len(logits):
        raise InputError(f"several predictions have logits [T, N, q], and these have the shape {logits.shape}")
    with np.errstate(invalid="ignore"):  # NaN and infinite logits give NaN, in their own row
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def _minus_entropy(p: FloatArray) -> FloatArray:
    """Return Σ p log p over the last axis; 0 log 0 is 0."""
    return np.asarray((p * np.log(np.where(p == 0, 1.0, p))).sum(axis=-1))
