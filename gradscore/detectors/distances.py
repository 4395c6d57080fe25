"""Detectors that measure how far a vector is from known ones."""

from types import MappingProxyType
from typing import Any

import numpy as np

from gradscore.detectors.arithmetic import Values, kth_largest, nearest, norm, normalised, rows_at
from gradscore.detectors.covariance import bank_rows, class_means, whitening, within_classes
from gradscore.detectors.detector import Arrays, Detector, Seen
from gradscore.detectors.observations import FloatArray, IntArray, Observations

_CLASSES = MappingProxyType({"centre": "D", "whitening": "DD", "means": "cD"})
_BACKGROUND = MappingProxyType({"centre": "D", "whitening": "DD", "means": "1D"})


class NearestNeighbour(Detector):
    """KNN: minus the distance to the k-th nearest of the known vectors, all on the unit sphere.

    Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors", section 3. Of the known vectors, a random sample
    of at most 1,000 counts, as the paper's sampling ratio allows; so k is 10 and not 50.
    """

    reads_vector = True
    shapes = MappingProxyType({"bank": "kD"})

    def __init__(self, name: str, neighbour: int = 10) -> None:
        super().__init__(name)
        self.neighbour = neighbour

    def learned(self, known: Observations, head: Any) -> Arrays:  # noqa: ARG002 - one signature for all
        """Return the bank of unit vectors."""
        return {"bank": normalised(_vectors(known)[bank_rows(len(known))])}

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return −‖a/‖a‖ − b_k‖, where b_k has the k-th largest product with a."""
        bank, unit = reference["bank"], normalised(seen.vector)
        count = min(self.neighbour, len(bank))
        return -norm(unit - rows_at(bank, kth_largest(unit @ bank.T, count)))


class Mahalanobis(Detector):
    """Minus the squared Mahalanobis distance to the nearest class mean, under one covariance for all classes.

    Lee et al. 2018, "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks", equation 2, on
    the penultimate vector. The covariance is shrunk as Ledoit and Wolf 2004 say. With `unit`, vectors are put on the unit
    sphere first: Müller and Hein 2025, "Mahalanobis++: Improving OOD Detection via Feature Normalization".
    """

    reads_vector = keeps_pairs = True
    shapes = MappingProxyType(_CLASSES)

    def __init__(self, name: str, *, unit: bool = False, shrinkage: float | None = None) -> None:
        super().__init__(name)
        self.unit = unit
        self.shrinkage = shrinkage

    def learned(self, known: Observations, head: Any) -> Arrays:  # noqa: ARG002
        """Return the whitening and the whitened class means."""
        return _classes(self._placed(_vectors(known)), known.label, self.shrinkage)

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return −min (a − μ)ᵀ Σ⁻¹ (a − μ)."""
        return -_distance(self._placed(seen.vector), reference)

    def _placed(self, a: Values) -> Values:
        return normalised(a) if self.unit else a


class RelativeMahalanobis(Detector):
    """RMDS: minus the smallest difference of a class's Mahalanobis distance and that of all known vectors together.

    Ren et al. 2021, "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection", equation 3.
    """

    reads_vector = keeps_pairs = True
    shapes = MappingProxyType({**_CLASSES, **{f"background_{name}": axes for name, axes in _BACKGROUND.items()}})

    def __init__(self, name: str, *, shrinkage: float | None = None) -> None:
        super().__init__(name)
        self.shrinkage = shrinkage

    def learned(self, known: Observations, head: Any) -> Arrays:  # noqa: ARG002
        """Return the classes' whitening and means, and those of the background."""
        vectors = _vectors(known)
        background = _classes(vectors, np.zeros_like(known.label), self.shrinkage)
        classes = _classes(vectors, known.label, self.shrinkage)
        return {**classes, **{f"background_{name}": one for name, one in background.items()}}

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return −min (d²_c − d²_0)."""
        background = {name: reference[f"background_{name}"] for name in _CLASSES}
        return _distance(seen.vector, background) - _distance(seen.vector, reference)


class LayersMahalanobis(Detector):
    """The sum of `Mahalanobis` over several layers, each layer's input as its means over all positions.

    Lee et al. 2018 weigh the layers by a logistic regression on unknown inputs; here each counts once, which needs none.
    """

    reads_pooled = True
    shapes = MappingProxyType(_CLASSES)

    def __init__(self, name: str, *, shrinkage: float | None = None) -> None:
        super().__init__(name)
        self.shrinkage = shrinkage

    def learned(self, known: Observations, head: Any) -> Arrays:  # noqa: ARG002
        """Return `<layer>/<part>` for each part of `Mahalanobis`."""
        return {
            f"{layer}/{part}": one
            for layer, x in known.pooled.items()
            for part, one in _classes(x, known.label, self.shrinkage).items()
        }

    def misshapen(self, arrays: Arrays, sizes: dict[str, int]) -> str | None:  # noqa: ARG002
        """Return what does not fit in the arrays of one of the layers, or None."""
        layers: dict[str, dict[str, FloatArray]] = {}
        for name, one in arrays.items():
            layer, _, part = name.rpartition("/")
            layers.setdefault(layer, {})[part] = one
        problems = [super(LayersMahalanobis, self).misshapen(own, {}) for own in layers.values()]
        return next(filter(None, problems), None)

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return −Σ over the layers of the smallest squared distance."""
        layers = dict.fromkeys(name.rpartition("/")[0] for name in reference)
        total: Values = 0.0
        for layer in layers:
            total = total - _distance(seen.pooled[layer], {part: reference[f"{layer}/{part}"] for part in _CLASSES})
        return total


def _classes(x: FloatArray, label: IntArray, shrinkage: float | None) -> dict[str, FloatArray]:
    """Return the mean of the class means, the whitening within classes, and the whitened class means about that mean."""
    means = class_means(x, label)
    centre, whiten = means.mean(axis=0), whitening(within_classes(x, label), shrinkage)
    return {"centre": centre, "whitening": whiten, "means": (means - centre) @ whiten}


def _distance(x: Values, classes: Arrays) -> Values:
    return nearest((x - classes["centre"]) @ classes["whitening"], classes["means"])


def _vectors(known: Observations) -> Any:
    return known.vector
