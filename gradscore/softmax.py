"""Head features from logits, exact for any confidence: label's residual, maximum softmax and entropy, in float64."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def head_features(logits: NDArray[np.generic], labels: NDArray[np.int64]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return entropy, maximum softmax and residual, each [B], of logits [B, q] and their predicted labels [B].

    The residual s = 1 − p_ŷ = sigmoid(logsumexp(z_others) − z_ŷ) is never the difference of two near-equal numbers.
    Entropy is normalised by log q to [0, 1] (Oberdiek et al. 2018, eq. 3); with u the softmax over the other classes,
    H = −(1−s)·log1p(−s) − s·(log s + Σ u log u).
    """
    scores = np.asarray(logits, dtype=np.float64)
    rows = np.arange(len(scores))
    others = scores.copy()
    others[rows, labels] = -np.inf
    with np.errstate(invalid="ignore"):  # NaN logits give NaN features, in their own row
        top = others.max(axis=1, keepdims=True)
        weights = np.exp(others - top)
        total = weights.sum(axis=1)
        log_odds = top[:, 0] + np.log(total) - scores[rows, labels]
        log_residual = -np.logaddexp(0.0, -log_odds)
        log_max = -np.logaddexp(0.0, log_odds)
        unit = weights / total[:, None]
        unit_entropy = -np.sum(unit * np.log(np.where(unit > 0, unit, 1.0)), axis=1)
        residual, maximum = np.exp(log_residual), np.exp(log_max)
        entropy = -maximum * log_max + _times_log(residual, log_residual) + residual * unit_entropy
    return entropy / np.log(scores.shape[1]), maximum, residual


def _times_log(residual: FloatArray, log_residual: FloatArray) -> FloatArray:
    """−s·log s, 0 at s = 0."""
    return np.asarray(np.where(residual == 0, 0.0, -residual * np.where(residual == 0, 0.0, log_residual)))
