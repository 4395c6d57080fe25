"""Axes for feature values that span decades of both signs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MOST_TICKS = 3  # panels are narrow
NARROW = 100.0  # values of one sign within this ratio get a linear axis
SHOWN = (0.005, 0.995)  # quantiles at the ends of the axis


@dataclass(frozen=True)
class Scale:
    """The map x ↦ sign(x)·log10(1 + |x|/unit), or x itself if `unit` is None.

    Attributes
    ----------
    unit : float or None
        Values below it are shown almost linearly.
    low, high : float
        Ends of the axis, transformed.
    """

    unit: float | None
    low: float
    high: float

    @classmethod
    def of(cls, values: FloatArray) -> "Scale":
        """Choose the scale for finite values [N]."""
        nonzero = np.abs(values[values != 0])
        unit = None if len(nonzero) < 2 else _unit(values, nonzero)
        low, high = np.quantile(cls(unit, 0, 0)(values), SHOWN)
        margin = 0.05 * (high - low) or 0.5
        ends = [low - margin, high + margin]
        if unit is not None and low * high > 0:  # for values of one sign, the axis does not cross zero
            ends = np.clip(ends, 0, None) if low > 0 else np.clip(ends, None, 0)
        return cls(unit, float(ends[0]), float(ends[1]))

    def __call__(self, values: FloatArray) -> FloatArray:
        """Return the transformed values."""
        if self.unit is None:
            return values
        return np.asarray(np.sign(values) * (np.log10(np.abs(values) + self.unit) - np.log10(self.unit)))

    def ticks(self) -> tuple[list[float], list[str]]:
        """Return at most three ticks, transformed, and their labels."""
        if self.unit is None:
            from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - matplotlib is an extra

            round_ones = np.asarray(MaxNLocator(MOST_TICKS, steps=[1, 2, 5, 10]).tick_values(self.low, self.high))
            places = round_ones[(round_ones >= self.low) & (round_ones <= self.high)]
            return places.tolist(), [f"{place:.3g}".replace("-", "−") for place in places]
        exponents = range(int(np.floor(np.log10(self.unit))), 309)
        values = np.array([-(10.0**e) for e in exponents][::-1] + [0.0] + [10.0**e for e in exponents])
        places = self(values)
        inside = np.flatnonzero((places >= self.low) & (places <= self.high))
        chosen = inside[:: max(1, -(-len(inside) // MOST_TICKS))] if len(inside) else inside
        return places[chosen].tolist(), [_label(values[index]) for index in chosen]


def _unit(values: FloatArray, nonzero: FloatArray) -> float | None:
    positive = float(np.mean(values > 0))
    one_sign = max(positive, 1 - positive) > 0.99
    low, middle, high = np.quantile(nonzero, [0.01, 0.5, 0.99])
    if one_sign and high < NARROW * low:
        return None
    return max(1e-300, float(low if one_sign else middle))


def _label(value: float) -> str:
    if value == 0:
        return "0"
    text = f"1e{round(np.log10(abs(value)))}" if not 0.01 <= abs(value) <= 1000 else f"{abs(value):g}"
    return ("−" if value < 0 else "") + text.replace("-", "−")
