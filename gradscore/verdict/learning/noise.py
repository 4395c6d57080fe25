"""Features that are zero but for rounding: another runtime, or another order of sums, rounds to other numbers.

The derivatives by a softmax layer's logits add up to zero, and with them the weights' mean: what a table holds there is the
last digit of single precision. Unlike small numbers it has no digit in common with what another runtime gives, and a verdict
that reads it says something else elsewhere.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gradscore.errors import InputError

LARGEST_MEAN = 1e-6  # of the layer's standard deviation
LARGEST_SKEWNESS = 1e-5


def without_noise(
    columns: npt.NDArray[np.int64], features: npt.NDArray[np.float64], names: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Leave out means and skewnesses that are rounding noise in every row of features [N, F].

    Raises
    ------
    InputError
        Nothing else was chosen.
    """
    place = {name: column for column, name in enumerate(names)}
    kept = [column for column in columns if not _is_noise(names[column], features, place)]
    if not kept:
        noise = ", ".join(names[column] for column in columns)
        raise InputError(
            f"what the verdict may read is zero but for rounding in every row: {noise}; choose other features (--features)"
        )
    return np.array(kept, dtype=np.int64)


def _is_noise(name: str, features: npt.NDArray[np.float64], place: dict[str, int]) -> bool:
    layer, _, statistic = name.rpartition(".")
    values = np.abs(features[:, place[name]])
    if statistic == "skewness":
        return bool((values <= LARGEST_SKEWNESS).all())
    spread = place.get(f"{layer}.std")
    return statistic == "mean" and spread is not None and bool((values <= LARGEST_MEAN * features[:, spread]).all())
