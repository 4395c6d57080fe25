"""How far an output of a self-scoring model, in single precision, may be from the expected number."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore.model.metadata import LAYER_STATISTICS
from gradscore.scoring.scores import Scores

RTOL = 1e-3
NOISE = (
    1e-6  # a gradient so much smaller than the network's largest numbers is what rounding left of numbers that cancel
)

FloatArray = NDArray[np.float64]


def is_alike(found: NDArray[Any], expected: NDArray[Any], *, scale: FloatArray | float = 0.0) -> bool:
    """Tell whether numbers agree to `RTOL` of the largest finite expected one, or of `scale`."""
    actual, wanted = (np.asarray(numbers, dtype=np.float64) for numbers in (found, expected))
    largest = np.maximum(np.abs(wanted[np.isfinite(wanted)]).max(initial=0), scale)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        is_near = np.abs(actual - wanted) <= RTOL * (np.abs(wanted) + largest)
    return bool((is_near | (actual == wanted) | (np.isnan(actual) & np.isnan(wanted))).all())


def is_close(one: FloatArray, other: FloatArray | float) -> NDArray[np.bool_]:
    """Tell which probabilities are so close that rounding may swap them."""
    return np.abs(one - other) <= RTOL


def scale_of(feature: str, scores: Scores) -> FloatArray | float:
    """Return the scale [B] of a feature beyond its own size.

    Extrema and mean of a layer are small numbers beside its root mean square, and its skewness and kurtosis beside 1. Where
    a layer is nothing but noise, any number is right.
    """
    layer, _, statistic = feature.rpartition(".")
    spread = (f"{layer}.mean", f"{layer}.std")
    if statistic not in LAYER_STATISTICS or not set(spread) <= set(scores.feature_names):
        return 0.0
    size = np.hypot(*(scores[name] for name in spread))
    least = NOISE * np.maximum(np.abs(scores["all.min"]), np.abs(scores["all.max"]))
    scale = np.ones_like(size) if statistic in ("skewness", "kurtosis") else size
    return np.where(size <= least, np.inf, scale)
