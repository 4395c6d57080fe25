"""Two confidences on the same rows: the difference of their AUROC, with an interval; and intervals of fractions.

The variance of the difference is DeLong's (DeLong, DeLong and Clarke-Pearson 1988, "Comparing the Areas under Two or More
Correlated Receiver Operating Characteristic Curves"): exact counts, no resampling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LEVEL = 0.95
_Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


@dataclass(frozen=True)
class Difference:
    """AUROC of two confidences, and the 95 % interval of the first one minus the second."""

    first: float
    second: float
    low: float
    high: float


def auroc_difference(first: FloatArray, second: FloatArray, positive: BoolArray) -> Difference:
    """Compare two confidences [N], larger meaning positive, on rows of both classes [N]."""
    return auroc_differences([(first, second, positive)])


def auroc_differences(parts: Sequence[tuple[FloatArray, FloatArray, BoolArray]]) -> Difference:
    """Compare two confidences part by part, and return the mean over the parts, weighted by their pairs of rows.

    Rows of different parts are not compared: their confidences may come from different fits. Parts are independent.
    """
    pairs = np.array([float(positive.sum()) * float((~positive).sum()) for _, _, positive in parts])
    weights = pairs / pairs.sum()
    figures = np.array([_figures(*part) for part in parts])
    first, second = weights @ figures[:, 0], weights @ figures[:, 1]
    half = _Z * float(np.sqrt(weights**2 @ figures[:, 2]))
    gain = float(first - second)
    return Difference(float(first), float(second), gain - half, gain + half)


def _figures(first: FloatArray, second: FloatArray, positive: BoolArray) -> tuple[float, float, float]:
    """Return both AUROC, and the variance of their difference."""
    parts = [_placements(values, positive) for values in (first, second)]
    variance = sum(
        float(np.var(one - other, ddof=1)) / len(one) if len(one) > 1 else 0.25
        for one, other in zip(*parts, strict=True)
    )
    return float(parts[0][0].mean()), float(parts[1][0].mean()), variance


def fraction_interval(hits: int, rows: int) -> tuple[float, float]:
    """Return the 95 % interval of a fraction (Wilson 1927). Without rows, it is all of 0 to 1."""
    if not rows:
        return 0.0, 1.0
    share, spread = hits / rows, _Z**2 / rows
    centre, width = share + spread / 2, _Z * float(np.sqrt(share * (1 - share) / rows + spread / (4 * rows)))
    return (centre - width) / (1 + spread), (centre + width) / (1 + spread)


def _placements(values: FloatArray, positive: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return for each positive the share of negatives below it, and for each negative that of positives above it."""
    above, below = values[positive], values[~positive]
    wins = (_ranks(below, above, "left") + _ranks(below, above, "right")) / (2 * len(below))
    losses = 1 - (_ranks(above, below, "left") + _ranks(above, below, "right")) / (2 * len(above))
    return wins, losses


def _ranks(among: FloatArray, values: FloatArray, side: str) -> FloatArray:
    return np.searchsorted(np.sort(among), values, side=side).astype(np.float64)  # type: ignore[call-overload,no-any-return]
