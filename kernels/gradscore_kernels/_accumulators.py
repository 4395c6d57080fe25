"""Merging accumulators and reading the eight statistics from them.

An accumulator is a row of eight float64 numbers: n, Σ|g|, mean, M2, M3, M4, min, max.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._errors import KernelError

ACCUMULATORS = ("n", "abs_sum", "mean", "M2", "M3", "M4", "min", "max")
STATISTICS = ("l1", "l2", "min", "max", "mean", "std", "skewness", "kurtosis")

# A standard deviation below this share of the mean is float64 rounding of a constant, not spread (rule of scipy.stats).
ROUNDING = 1e-15

FAR = 0.25  # mean² / M2: above it, the rounding of float32 sums over positions shows (kFar in kernels.cpp)

NO_ACCUMULATOR = "an accumulator is a float64 array [B, 8] ({}), not {} {}"


def checked_accumulators(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `value` if it is an array of accumulators, else raise KernelError."""
    if not isinstance(value, np.ndarray) or value.dtype != np.float64 or value.ndim != 2 or value.shape[1] != 8:
        found = (value.dtype, list(value.shape)) if isinstance(value, np.ndarray) else ("a", type(value).__name__)
        raise KernelError(NO_ACCUMULATOR.format(", ".join(ACCUMULATORS), *found))
    return value


def merge(accumulators: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Merge accumulators of disjoint parts of one gradient, sample by sample.

    Parameters
    ----------
    accumulators
        Arrays `[B, 8]`, one per part (a kernel and its bias; all layers of a network).

    Returns
    -------
    NDArray
        `[B, 8]`: what one pass over all parts together would give.

    Raises
    ------
    KernelError
        There is nothing to merge, an array holds no accumulators, or the parts differ in their number of samples.

    Notes
    -----
    Pébay (2008), *Formulas for robust, one-pass parallel computation of covariances and arbitrary-order statistical
    moments*, eq. 2.1 for any number of sets at once: with d_i = mean_i − mean,
    M2 = Σ(M2_i + n_i d_i²), M3 = Σ(M3_i + 3 d_i M2_i + n_i d_i³), M4 = Σ(M4_i + 4 d_i M3_i + 6 d_i² M2_i + n_i d_i⁴).
    """
    parts = [checked_accumulators(part) for part in accumulators]
    if not parts:
        raise KernelError("nothing to merge: pass at least one array of accumulators [B, 8]")
    if len({len(part) for part in parts}) > 1:
        raise KernelError(
            f"accumulators of {[len(part) for part in parts]} samples do not merge: pass parts of one batch"
        )
    if len(parts) == 1:
        return parts[0].copy()
    n, abs_sum, mean, m2, m3, m4, low, high = np.stack(parts).transpose(2, 0, 1)
    merged = np.empty((len(parts[0]), 8))
    with np.errstate(invalid="ignore"):  # rows that hold NaN stay NaN
        total = n.sum(0)
        # Relative to the first part's mean, so that parts of one constant merge to exactly that constant.
        centre = mean[0] + (n * (mean - mean[0])).sum(0) / total
        d = mean - centre
        merged[:, 0] = total
        merged[:, 1] = abs_sum.sum(0)
        merged[:, 2] = centre
        merged[:, 3] = (m2 + n * d * d).sum(0)
        merged[:, 4] = (m3 + d * (3 * m2 + n * d * d)).sum(0)
        merged[:, 5] = (m4 + d * (4 * m3 + d * (6 * m2 + n * d * d))).sum(0)
        merged[:, 6] = low.min(0)
        merged[:, 7] = high.max(0)
    return merged


def rounding_shows(accumulators: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which samples `[B]` must be summed in float64: their numbers lie close together, far from 0."""
    shows: NDArray[np.bool_] = accumulators[:, 2] ** 2 > FAR * accumulators[:, 3]
    return shows


def product(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the accumulators of all products x_i y_j, in closed form.

    b and c are the means of x and y; u and w are their central moments. No term of the variance is negative, so none
    cancels another.
    """
    n = x[:, 0] * y[:, 0]
    b, c = x[:, 2], y[:, 2]
    bb, cc, bc = b * b, c * c, b * c
    u2, u3, u4 = x[:, 3:6].T / x[:, 0]
    w2, w3, w4 = y[:, 3:6].T / y[:, 0]
    result = np.empty_like(x)
    result[:, 0] = n
    result[:, 1] = x[:, 1] * y[:, 1]
    result[:, 2] = bc
    result[:, 3] = n * (bb * w2 + cc * u2 + u2 * w2)
    result[:, 4] = n * (bb * b * w3 + cc * c * u3 + u3 * w3 + 3 * (b * u2 * w3 + c * u3 * w2 + 2 * bc * u2 * w2))
    result[:, 5] = n * (
        bb * bb * w4
        + cc * cc * u4
        + u4 * w4
        + 6 * (bb * cc * u2 * w2 + bb * u2 * w4 + cc * u4 * w2)
        + 12 * (b * bc * u2 * w3 + c * bc * u3 * w2 + bc * u3 * w3)
        + 4 * (b * u3 * w4 + c * u4 * w3)
    )
    extremes = x[:, 6:, None] * y[:, None, 6:]
    result[:, 6] = extremes.min((1, 2))
    result[:, 7] = extremes.max((1, 2))
    result[~np.isfinite(result[:, 1]), 1:] = np.nan
    return result


def statistics(accumulators: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn accumulators `[B, 8]` into the statistics `[B, 8]` that `STATISTICS` names.

    Moments are those of a population, as `scipy.stats.skew` and `scipy.stats.kurtosis` compute them by default (kurtosis
    is Fisher's excess). Skewness and kurtosis of a constant gradient are 0. A gradient counts as constant if its standard
    deviation is below 1e-15 of its mean, which is rounding. A row of NaN (a gradient that held NaN or Inf) gives a row of
    NaN.

    Parameters
    ----------
    accumulators
        An array `[B, 8]` of a kernel or of `merge`.

    Returns
    -------
    NDArray
        `[B, 8]`, in the units of the gradient; skewness and kurtosis have none.

    Raises
    ------
    KernelError
        The array is not float64 `[B, 8]`.

    Notes
    -----
    Each quotient divides numbers of similar size. So neither squares nor fourth powers leave the range of float64 here:
    gradients from 1e-75 to 1e75 (all of float32's range) are exact.
    """
    n, abs_sum, mean, m2, m3, m4, low, high = checked_accumulators(accumulators).T
    result = np.empty((len(accumulators), 8))
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = m2 / n
        std = np.sqrt(variance)
        constant = std <= ROUNDING * np.abs(mean)
        skewness = m3 / n / std / std / std
        kurtosis = m4 / n / variance / variance - 3
        result[:, 0] = abs_sum
        result[:, 1] = np.hypot(np.sqrt(m2), np.sqrt(n) * mean)
        result[:, 2] = low
        result[:, 3] = high
        result[:, 4] = mean
        result[:, 5] = std
        result[:, 6] = np.where(constant, 0, skewness)
        result[:, 7] = np.where(constant, 0, kurtosis)
    return result


LINEAR = np.array([name not in {"skewness", "kurtosis"} for name in STATISTICS])


def layer_statistics(
    accumulators: Sequence[NDArray[np.float64]], layers: Sequence[int], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Merge the parts of each layer and turn them into statistics, as `gradscore_kernels.layer_statistics` says."""
    grouped: list[list[NDArray[np.float64]]] = [[] for _ in range(max(layers) + 1)]
    for layer, part in zip(layers, accumulators, strict=True):
        grouped[layer].append(part)
    merged = [merge(parts) for parts in grouped]
    found = np.stack([statistics(part) for part in (*merged, merge(merged))], axis=1)
    return np.asarray(np.where(LINEAR, found * scale[:, None, None], found)).reshape(len(scale), -1)
