"""OpenMax: how far the logits are from the mean logits of their class, by extreme value theory."""

from types import MappingProxyType
from typing import Any

import numpy as np

from gradscore.detectors.arithmetic import Values, chosen, column, largest, log_sum_exp, replaced, rows_at
from gradscore.detectors.detector import Arrays, Detector, Seen
from gradscore.detectors.observations import FloatArray, Observations

_SHIFT = 10_000.0  # the smallest distance of a tail is moved here before the fit, as in libMR
_STEEPEST = 1e7  # shape of a tail whose distances are all equal
_HALVINGS = 200


class OpenMax(Detector):
    """Minus the log-odds of the class "unknown" in the softmax of the revised logits.

    Bendale and Boult 2016, "Towards Open Set Deep Networks", algorithms 1 and 2. For each class, a Weibull distribution is fitted
    to the `tail` largest Euclidean distances between the known logits and their mean. The logits of the `revised` most probable
    classes lose a part w·(rank weight), where w is the distribution's value at the distance; what they lose is the logit of
    "unknown". A class without known rows has w = 1.
    """

    shapes = MappingProxyType({"means": "qq", "start": "q", "shape": "q", "scale": "q"})

    def __init__(self, name: str, tail: int = 20, revised: int = 10) -> None:
        super().__init__(name)
        self.tail = tail
        self.revised = revised

    def learned(self, known: Observations, head: Any) -> Arrays:  # noqa: ARG002 - one signature for all
        """Return for each class its mean logits, and the start, shape and scale of its tail."""
        means = np.zeros((known.classes, known.classes))
        tails = np.tile([0.0, 1.0, 0.0], (known.classes, 1))  # scale 0: the distribution is 1 everywhere
        for c in np.unique(known.label):
            logits = known.logits[known.label == c]
            means[c] = logits.mean(axis=0)
            distances = np.sort(np.linalg.norm(logits - means[c], axis=1))[-self.tail :]
            tails[c] = distances[0], *weibull(distances - distances[0] + _SHIFT)
        return {"means": means, "start": tails[:, 0], "shape": tails[:, 1], "scale": tails[:, 2]}

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return log Σ exp of the revised logits less the logit of "unknown"."""
        count = min(self.revised, seen.classes)
        places = largest(seen.logits, count, ordered=True)
        logits = chosen(seen.logits, places)
        lost = logits * self._tail_values(seen.logits, places, reference) * (np.arange(count, 0.0, -1.0) / count)
        return log_sum_exp(replaced(seen.logits, places, logits - lost)) - lost.sum(axis=1)

    def _tail_values(self, z: Values, places: Values, reference: Arrays) -> Values:
        """Return the Weibull distribution at the distance to each of the most probable classes, [N, k]."""
        away = rows_at(reference["means"], places) - column(z)
        distance = np.sqrt((away * away).sum(axis=2))
        moved = np.maximum(distance - rows_at(reference["start"], places) + _SHIFT, 0.0)
        raised = np.power(moved / rows_at(reference["scale"], places), rows_at(reference["shape"], places))
        return 1.0 - np.exp(-raised)


def weibull(x: FloatArray) -> tuple[float, float]:
    """Return shape k and scale λ of the Weibull distribution of largest likelihood, for positive values.

    k is the root of Σ xᵏ log x / Σ xᵏ − 1/k = mean(log x), which increases with k; λᵏ is the mean of xᵏ. If all values are
    equal, the likelihood has no maximum: k is then 10⁷.
    """
    top = float(x.max())
    logs = np.log(x / top)

    def excess(k: float) -> float:
        weights = np.exp(k * logs)
        return float((weights * logs).sum() / weights.sum() - 1.0 / k - logs.mean())

    low, high = 1e-6, _STEEPEST
    if excess(high) > 0:
        for _ in range(_HALVINGS):
            middle = np.sqrt(low * high)
            low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return high, top * float(np.exp(high * logs).mean()) ** (1.0 / high)
