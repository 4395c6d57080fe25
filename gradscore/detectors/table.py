"""The table of detectors. Each is one small object; larger values mean more confident, or more likely known."""

from collections.abc import Mapping
from types import MappingProxyType

from gradscore.detectors.detector import Detector
from gradscore.detectors.distances import LayersMahalanobis, Mahalanobis, NearestNeighbour, RelativeMahalanobis
from gradscore.detectors.gradients import (
    AllOnes,
    ClassCosine,
    ClassSubspace,
    ExpectedGradient,
    KroneckerNorm,
    OrthogonalProjection,
    UniformGradient,
)
from gradscore.detectors.logit_scores import Energy, Entropy, GeneralisedEntropy, KLMatching, MaxLogit, MaxSoftmax
from gradscore.detectors.openmax import OpenMax
from gradscore.detectors.shaping import ActivationScale, Dice, ReAct, ShapingB, ShapingP, ShapingS
from gradscore.detectors.subspaces import DecisionBoundary, NeighbourGuidance, NeuralCollapse, VirtualLogit

DETECTORS: Mapping[str, Detector] = MappingProxyType(
    {
        one.name: one
        for one in (
            MaxSoftmax("max_softmax"),
            Entropy("entropy"),
            MaxLogit("max_logit"),
            Energy("energy"),
            GeneralisedEntropy("gen"),
            KLMatching("kl_matching"),
            OpenMax("openmax"),
            ReAct("react"),
            ShapingP("ash_p", 0.6),
            ShapingB("ash_b", 0.65),
            ShapingS("ash_s", 0.9),
            ActivationScale("scale", 0.85),
            Dice("dice"),
            NearestNeighbour("knn"),
            Mahalanobis("mahalanobis"),
            Mahalanobis("mahalanobis_unit", unit=True),
            RelativeMahalanobis("mahalanobis_relative"),
            LayersMahalanobis("mahalanobis_layers"),
            VirtualLogit("vim"),
            NeuralCollapse("neco"),
            NeighbourGuidance("nnguide"),
            DecisionBoundary("fdbd"),
            UniformGradient("gradnorm"),
            ExpectedGradient("exgrad"),
            AllOnes("all_ones"),
            OrthogonalProjection("grad_orth"),
            ClassSubspace("grad_pca"),
            ClassCosine("grad_cosine"),
            KroneckerNorm("grad_kfac"),
            KroneckerNorm("grad_kfac_unit", unit=True),
        )
    }
)
"""The detectors by name, those of the logits first."""
