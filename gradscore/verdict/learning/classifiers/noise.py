"""Removal of features that are zero except for rounding noise.

The derivatives with respect to a softmax layer's logits sum to zero, and so does the mean of its weight gradients. The
table then holds the rounding error of single precision. Another runtime, or another order of sums, gives a value that
has no digit in common with it. A verdict that reads such a feature would give different results there.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gradscore.errors import InputError

LARGEST_MEAN = 1e-6  # as a fraction of the layer's standard deviation
LARGEST_SKEWNESS = 1e-5


def without_noise(
    columns: npt.NDArray[np.int64], features: npt.NDArray[np.float64], names: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Leave out means and skewnesses that are rounding noise in every row of features [N, F].

    Raises
    ------
    InputError
        No other feature was selected.
    """
    kept = telling(columns, features, names)
    if not len(kept):
        noise = ", ".join(names[column] for column in columns)
        raise InputError(
            f"the selected features are zero except for rounding noise in every row: {noise}; choose other features (--features)"
        )
    return kept


def telling(
    columns: npt.NDArray[np.int64], features: npt.NDArray[np.float64], names: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Return the columns that are more than rounding noise in some row of features [N, F]; there may be none."""
    place = {name: column for column, name in enumerate(names)}
    kept = [column for column in columns if not _is_noise(names[column], features, place)]
    return np.array(kept, dtype=np.int64)


def _is_noise(name: str, features: npt.NDArray[np.float64], place: dict[str, int]) -> bool:
    layer, _, statistic = name.rpartition(".")
    values = np.abs(features[:, place[name]])
    if statistic == "skewness":
        return bool((values <= LARGEST_SKEWNESS).all())
    spread = place.get(f"{layer}.std")
    return statistic == "mean" and spread is not None and bool((values <= LARGEST_MEAN * features[:, spread]).all())
