"""Detectors that compare the vector with directions: principal ones, neighbours, and the boundaries between classes.

a is the input of the dense layer that makes the logits z = W a + b.
"""

from types import MappingProxyType
from typing import Any

import numpy as np

from gradscore.detectors.arithmetic import (
    SMALLEST,
    Values,
    at,
    chosen,
    column,
    largest,
    log_sum_exp,
    norm,
    normalised,
    rows_at,
)
from gradscore.detectors.covariance import SUBSPACE, bank_rows, principal
from gradscore.detectors.detector import WIDEST, Arrays, Detector, Seen
from gradscore.detectors.observations import FloatArray, LastLayer, Observations
from gradscore.errors import ModelError

_WIDE = 768  # from this width on, ViM keeps 512 directions


class VirtualLogit(Detector):
    """ViM: the energy of z less α times the norm of what a has outside the principal subspace of the known vectors.

    Wang et al. 2022, "ViM: Out-Of-Distribution with Virtual-logit Matching", equations 4 to 7. The origin is −W⁺b. The subspace
    has half of the directions, and 512 from a width of 768 on, as in the paper (which takes 1,000 from 2,048 on).
    """

    reads_vector = reads_head = keeps_pairs = True
    shapes = MappingProxyType({"origin": "D", "basis": "Dk", "alpha": "1"})

    def __init__(self, name: str, directions: int | None = None) -> None:
        super().__init__(name)
        self.directions = directions

    def learned(self, known: Observations, head: LastLayer) -> Arrays:
        """Return the origin, the principal directions and α."""
        origin = -np.linalg.pinv(head.weight) @ head.bias
        x = _vectors(known) - origin
        usual = SUBSPACE if x.shape[1] >= _WIDE else x.shape[1] // 2
        basis = principal(x, usual if self.directions is None else self.directions)
        outside = _outside(x, basis).mean()
        alpha = known.logits.max(axis=1).mean() / outside if outside > 0 else 0.0
        return {"origin": origin, "basis": basis, "alpha": np.array([alpha])}

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002 - one signature for all
        """Return log Σ exp z − α‖(1 − P Pᵀ)(a − o)‖."""
        outside = _outside(seen.vector - reference["origin"], reference["basis"])
        return log_sum_exp(seen.logits) - outside * reference["alpha"]


class NeuralCollapse(Detector):
    """NECO: the share of the standardised vector's norm inside the principal subspace, times the largest logit.

    Ben Ammar et al. 2024, "NECO: NEural Collapse Based Out-of-distribution detection", equation 6. The subspace has as many
    directions as classes, at most half of the vector's. Numbers that are constant on the known rows are not scaled.
    """

    reads_vector = keeps_pairs = True
    shapes = MappingProxyType({"mean": "D", "inverse": "D", "basis": "Dk"})

    def __init__(self, name: str, directions: int | None = None) -> None:
        super().__init__(name)
        self.directions = directions

    def learned(self, known: Observations, head: Any) -> Arrays:  # noqa: ARG002
        """Return mean, inverse standard deviation and principal directions."""
        vectors = _vectors(known)
        mean, deviation = vectors.mean(axis=0), vectors.std(axis=0)
        inverse = 1.0 / np.where(deviation > SMALLEST, deviation, 1.0)
        usual = min(known.classes, max(1, vectors.shape[1] // 2))
        basis = principal((vectors - mean) * inverse, usual if self.directions is None else self.directions)
        return {"mean": mean, "inverse": inverse, "basis": basis}

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return z_ŷ·‖Pᵀx‖ / ‖x‖."""
        x = (seen.vector - reference["mean"]) * reference["inverse"]
        return at(seen.logits, seen.label) * norm(x @ reference["basis"]) / np.maximum(norm(x), SMALLEST)


class NeighbourGuidance(Detector):
    """NNGuide: the energy times the mean product with the k nearest known vectors, each scaled by its own energy.

    Park, Jung and Teoh 2023, "Nearest Neighbor Guidance for Out-of-Distribution Detection", equations 4 and 5. Of the known
    vectors, a random sample of at most 1,000 counts.
    """

    reads_vector = True
    shapes = MappingProxyType({"bank": "kD"})

    def __init__(self, name: str, neighbours: int = 10) -> None:
        super().__init__(name)
        self.neighbours = neighbours

    def learned(self, known: Observations, head: Any) -> Arrays:  # noqa: ARG002
        """Return the bank of scaled unit vectors."""
        few = known.rows(bank_rows(len(known)))
        return {"bank": normalised(_vectors(few)) * column(log_sum_exp(few.logits))}

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return the energy times the mean of the k largest products."""
        bank = reference["bank"]
        products = normalised(seen.vector) @ bank.T
        nearest = chosen(products, largest(products, min(self.neighbours, len(bank))))
        return nearest.mean(axis=1) * log_sum_exp(seen.logits)


class DecisionBoundary(Detector):
    """fDBD: the mean distance to the boundaries with the other classes, over the distance to the mean of the known vectors.

    Liu and Qin 2024, "Fast Decision Boundary based Out-of-Distribution Detector", equations 6 and 8. Classes with the same
    weights as ŷ have no boundary with it, and count 0.
    """

    reads_vector = reads_head = True
    shapes = MappingProxyType({"mean": "D", "inverse": "qq"})

    def learned(self, known: Observations, head: LastLayer) -> Arrays:
        """Return the mean, and 1 over the distances between the classes' weights."""
        if known.classes > WIDEST:
            raise ModelError(
                f"{self.name} keeps a matrix over all pairs of classes, of which this model has {known.classes:,}; the limit is "
                f"{WIDEST:,}: leave it out"
            )
        distance = np.stack([norm(head.weight - row) for row in head.weight])
        inverse = np.where(distance > SMALLEST, 1.0 / np.maximum(distance, SMALLEST), 0.0)
        return {"mean": _vectors(known).mean(axis=0), "inverse": inverse}

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return the mean of |z_ŷ − z_c| / ‖w_ŷ − w_c‖ over c, over ‖a − mean‖."""
        gaps = column(at(seen.logits, seen.label)) - seen.logits
        boundaries = (np.absolute(gaps) * rows_at(reference["inverse"], seen.label)).sum(axis=1)
        return boundaries / (np.maximum(norm(seen.vector - reference["mean"]), 1e-8) * (seen.classes - 1.0))


def _outside(x: Values, basis: FloatArray) -> Values:
    """Return the norm of what x has outside a subspace, [N]."""
    return norm(x - (x @ basis) @ basis.T)


def _vectors(known: Observations) -> Any:
    return known.vector
