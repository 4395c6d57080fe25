"""Features of a prediction that follow from its logits alone, in NumPy."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def softmax_features(logits: FloatArray, labels: NDArray[np.int64]) -> FloatArray:
    """Return entropy, maximum softmax and residual, as `gradscore_kernels.softmax_features` says."""
    rows = np.arange(len(logits))
    others = logits.copy()
    others[rows, labels] = -np.inf
    with np.errstate(invalid="ignore"):  # NaN logits give NaN features, in their own row
        top = others.max(axis=1, keepdims=True)
        weights = np.exp(others - top)
        total = weights.sum(axis=1)
        log_odds = top[:, 0] + np.log(total) - logits[rows, labels]
        log_residual = -np.logaddexp(0.0, -log_odds)
        log_max = -np.logaddexp(0.0, log_odds)
        unit = weights / total[:, None]
        unit_entropy = -np.sum(unit * np.log(np.where(unit > 0, unit, 1.0)), axis=1)
        residual, maximum = np.exp(log_residual), np.exp(log_max)
        entropy = -maximum * log_max + _times_log(residual, log_residual) + residual * unit_entropy
    return np.column_stack([entropy / np.log(logits.shape[1]), maximum, residual])


def _times_log(residual: FloatArray, log_residual: FloatArray) -> FloatArray:
    """Return −s·log s, which is 0 at s = 0."""
    return np.asarray(np.where(residual == 0, 0.0, -residual * np.where(residual == 0, 0.0, log_residual)))
