"""Class means, covariances with shrinkage, their whitening, and banks of rows: the state that distances need."""

import numpy as np

from gradscore.detectors.observations import FloatArray, IntArray

BANK_ROWS = 1000  # of known rows that a detector keeps; more are sub-sampled
SUBSPACE = 512  # directions that a detector keeps at most
_SEED = 19
_FLOOR = 1e-12  # of an eigenvalue, over the largest


def bank_rows(rows: int, most: int = BANK_ROWS) -> IntArray:
    """Return which of the known rows are kept: all, or a random sample of `most`, the same each time, in order."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(_SEED).choice(rows, most, replace=False))


def class_means(x: FloatArray, label: IntArray) -> FloatArray:
    """Return the mean of each class that has rows, [c, D], in the order of the classes."""
    return np.stack([x[label == c].mean(axis=0) for c in np.unique(label)])


def within_classes(x: FloatArray, label: IntArray) -> FloatArray:
    """Return each row less the mean of its class, [N, D]."""
    _, index = np.unique(label, return_inverse=True)
    return np.asarray(x - class_means(x, label)[index])


def shrinkage_of(centred: FloatArray) -> float:
    """Return how far a covariance goes towards a multiple of the identity, from 0 to 1.

    Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices", lemma 3.3.
    """
    n, width = centred.shape
    covariance = centred.T @ centred / n
    squares = (covariance**2).sum()
    spread = squares - np.trace(covariance) ** 2 / width
    error = (((centred**2).sum(axis=1) ** 2).sum() / n - squares) / n
    return float(min(max(error, 0.0) / spread, 1.0)) if spread > 0 else 1.0


def whitening(centred: FloatArray, shrinkage: float | None = None) -> FloatArray:
    """Return V [D, D], so that ‖xᵀV‖² = xᵀΣ⁻¹x with the shrunk covariance Σ of centred rows.

    `shrinkage` None means that of Ledoit and Wolf. Directions without variance count as if they had 1e-12 of the largest one.
    """
    part = shrinkage_of(centred) if shrinkage is None else shrinkage
    covariance = centred.T @ centred / len(centred)
    width = len(covariance)
    shrunk = (1 - part) * covariance + part * np.trace(covariance) / width * np.eye(width)
    values, vectors = np.linalg.eigh(shrunk)
    largest = float(values[-1])
    values = np.maximum(values, _FLOOR * largest) if largest > 0 else np.ones(width)
    return np.asarray(vectors / np.sqrt(values))


def principal(x: FloatArray, count: int) -> FloatArray:
    """Return the first `count` principal directions of rows that are not centred, [D, count], at most 512."""
    _, vectors = np.linalg.eigh(x.T @ x)
    return np.ascontiguousarray(vectors[:, ::-1][:, : min(count, SUBSPACE)])


def explaining(x: FloatArray, share: float) -> FloatArray:
    """Return the first principal directions that together hold a share of Σ‖x‖², [D, k] with 1 ≤ k ≤ 512."""
    values = np.linalg.eigvalsh(x.T @ x)[::-1]
    total = np.cumsum(np.maximum(values, 0.0))
    count = int(np.searchsorted(total, share * total[-1])) + 1
    return principal(x, count)
