"""Detectors from the gradient of the last layer alone, in closed form.

Its kernel's gradient of one sample is δaᵀ: a is the layer's input, δ the gradient with respect to the logits. So norms,
projections and cosines are products of one factor of a and one of δ. Losses differ in δ: p − 1/q for KL(uniform ‖ p),
p − onehot(ŷ) = s·u for cross-entropy at the predicted label, with the residual s and the unit seed u.
"""

from types import MappingProxyType
from typing import Any

import numpy as np

from gradscore.detectors.arithmetic import (
    SMALLEST,
    Values,
    complement,
    norm,
    normalised,
    residual,
    rows_at,
    softmax,
    unit_seed,
)
from gradscore.detectors.covariance import class_means, explaining, whitening
from gradscore.detectors.detector import Arrays, Detector, Seen
from gradscore.detectors.observations import FloatArray, IntArray, Observations

_FLAT = 1e-10  # of the largest eigenvalue: a direction below it is none
_KEPT = 0.95  # share of Σ‖a‖² that the kept directions hold


class UniformGradient(Detector):
    """L1 norm of the gradient of KL(uniform ‖ p): Σ|a|·Σ|p − 1/q|. The bias does not count.

    Huang, Geng and Li 2021, "On the Importance of Gradients for Detecting Distributional Shifts in the Wild", equations 7 to 9.
    """

    reads_vector = True

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002 - one signature for all
        """Return Σ|a|·Σ|p − 1/q|."""
        distance = np.absolute(softmax(seen.logits) - 1.0 / seen.classes).sum(axis=1)
        return np.absolute(seen.vector).sum(axis=1) * distance


class ExpectedGradient(Detector):
    """ExGrad: minus the expected L1 norm of the gradient of log p_c, over labels c drawn from p.

    Igoe et al. 2022, "How Useful are Gradients for OOD Detection Really?". With ‖p − onehot(c)‖₁ = 2(1 − p_c) it is
    −Σ|a|·Σ 2 p_c (1 − p_c). The bias does not count.
    """

    reads_vector = True

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return −Σ|a|·Σ 2p(1 − p)."""
        p = softmax(seen.logits)
        expected = (p * complement(seen.logits, p, seen.label, seen.classes)).sum(axis=1) * 2.0
        return -(np.absolute(seen.vector).sum(axis=1) * expected)


class AllOnes(Detector):
    """Squared L2 norm of the gradient of binary cross-entropy between p and a label of ones: ‖q·p − 1‖²·(‖a‖² + 1).

    Lee and AlRegib 2020, "Gradients as a Measure of Uncertainty in Neural Networks", for kernel and bias of the last layer. The
    gradient vanishes for a uniform softmax, so larger means more confident, as pytorch-ood has it.
    """

    reads_vector = True

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return ‖q·p − 1‖²·(‖a‖² + 1)."""
        delta = softmax(seen.logits) * float(seen.classes) - 1.0
        return (delta * delta).sum(axis=1) * ((seen.vector * seen.vector).sum(axis=1) + 1.0)


class OrthogonalProjection(Detector):
    """The norm of the gradient of KL(uniform ‖ p) in the subspace of the known vectors: ‖Pᵀa‖·‖p − 1/q‖.

    After Behpour et al. 2023, "GradOrth: A Simple yet Efficient Out-of-Distribution Detection with Orthogonal Projection of
    Gradients". P are the principal directions that hold 95 % of Σ‖a‖² on the known rows, at most 512.
    """

    reads_vector = keeps_pairs = True
    shapes = MappingProxyType({"basis": "Dk"})

    def learned(self, known: Observations, head: Any) -> Arrays:  # noqa: ARG002
        """Return P."""
        return {"basis": explaining(_vectors(known), _KEPT)}

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return ‖Pᵀa‖·‖p − 1/q‖."""
        return norm(seen.vector @ reference["basis"]) * norm(softmax(seen.logits) - 1.0 / seen.classes)


class ClassSubspace(Detector):
    """The share of the norm of the gradient u aᵀ that lies in the subspace of the classes' reference gradients ū āᵀ.

    After Seleznova et al. 2025, "GradPCA: Leveraging NTK Alignment for Reliable Out-of-Distribution Detection", which takes the
    principal directions of the class means of gradients. Here these are products of the class means of a and u, so that
    the subspace is known by their Gram matrix and no matrix [q·D, q] is kept.
    """

    reads_vector = True
    shapes = MappingProxyType({"inputs": "cD", "seeds": "cq", "mixing": "ck"})

    def learned(self, known: Observations, head: Any) -> Arrays:  # noqa: ARG002
        """Return ā and ū as unit vectors, and what makes an orthonormal basis of their products."""
        inputs, seeds = (normalised(one) for one in _mean_factors(known))
        values, vectors = np.linalg.eigh((inputs @ inputs.T) * (seeds @ seeds.T))
        kept = values > _FLAT * values[-1]
        return {"inputs": inputs, "seeds": seeds, "mixing": vectors[:, kept] / np.sqrt(values[kept])}

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return the norm of the coordinates of u aᵀ / (‖u‖‖a‖) in that basis."""
        seed = normalised(unit_seed(seen.logits, seen.label, seen.classes))
        products = (normalised(seen.vector) @ reference["inputs"].T) * (seed @ reference["seeds"].T)
        return norm(products @ reference["mixing"])


class ClassCosine(Detector):
    """The cosine of the gradient u aᵀ and that of its predicted class, ū āᵀ from class means: cos(u, ū)·cos(a, ā).

    After Dhaliwal and Shintre 2018, "Gradient Similarity: An Explainable Approach to Detect Adversarial Attacks against Deep
    Learning". A class without known rows has the mean of all classes.
    """

    reads_vector = True
    shapes = MappingProxyType({"inputs": "qD", "seeds": "qq"})

    def learned(self, known: Observations, head: Any) -> Arrays:  # noqa: ARG002
        """Return ā and ū as unit vectors, one row a class."""
        inputs, seeds = _mean_factors(known)
        return {name: _every_class(one, known) for name, one in (("inputs", inputs), ("seeds", seeds))}

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return cos(u, ū)·cos(a, ā)."""
        seed = unit_seed(seen.logits, seen.label, seen.classes)
        of_seed = (normalised(seed) * rows_at(reference["seeds"], seen.label)).sum(axis=1)
        return of_seed * (normalised(seen.vector) * rows_at(reference["inputs"], seen.label)).sum(axis=1)


class KroneckerNorm(Detector):
    """Minus the L2 norm of the gradient after whitening by Kronecker factors: s·√(aᵀA⁻¹a · uᵀU⁻¹u).

    A and U are the mean of aaᵀ and uuᵀ on known rows, shrunk as Ledoit and Wolf 2004 say. Martens and Grosse 2015, "Optimizing
    Neural Networks with Kronecker-factored Approximate Curvature", whiten gradients so. `unit` leaves out the residual s: the
    norm then tells how unusual the gradient's direction is, and not how large it is.
    """

    reads_vector = keeps_pairs = True
    shapes = MappingProxyType({"inputs": "DD", "seeds": "qq"})

    def __init__(self, name: str, *, unit: bool = False) -> None:
        super().__init__(name)
        self.unit = unit

    def learned(self, known: Observations, head: Any) -> Arrays:  # noqa: ARG002
        """Return the whitening of a and of u."""
        seed = unit_seed(known.logits, known.label, known.classes)
        return {"inputs": whitening(_vectors(known)), "seeds": whitening(seed)}

    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:  # noqa: ARG002
        """Return −s·‖a‖_A·‖u‖_U."""
        seed = unit_seed(seen.logits, seen.label, seen.classes)
        whole = norm(seen.vector @ reference["inputs"]) * norm(seed @ reference["seeds"])
        return -whole if self.unit else -(whole * residual(seen.logits, seen.label, seen.classes))


def _mean_factors(known: Observations) -> tuple[FloatArray, FloatArray]:
    """Return the class means of a and u."""
    seed = unit_seed(known.logits, known.label, known.classes)
    return class_means(_vectors(known), known.label), class_means(seed, known.label)


def _every_class(means: FloatArray, known: Observations) -> FloatArray:
    """Return the means as unit vectors [q, D]; a class without rows has the mean of the others."""
    label: IntArray = np.unique(known.label)
    whole = np.repeat(means.mean(axis=0, keepdims=True), known.classes, axis=0)
    whole[label] = means
    return np.asarray(whole / np.maximum(norm(whole), SMALLEST)[:, None])


def _vectors(known: Observations) -> Any:
    return known.vector
