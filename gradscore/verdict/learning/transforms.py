"""Transforms of features for the meta-classifier: signed logarithm or normal scores, then standardisation.

Gradient norms span thirty decades. The signed logarithm is x ↦ sign(x)·log(1 + |x|/ε), with ε per feature from the
training rows. A feature of one sign gets a small ε, the 1 % quantile of |x|, and becomes its logarithm. A feature of
both signs gets a larger ε, up to the median, because its values near zero are sign changes and not a scale.

All arithmetic is in double precision, also in the ONNX graph. In single precision, a logarithm of 1e-30 has an error of
4e-6, and the large weights of an unpenalised meta-classifier turn this into visible errors of P(correct). A float32
graph that contains a fused verdict casts its [N, F] features to double, at no measurable cost. Such a graph may flush
values below 1.2e-38 to zero. ε is never below 1e-36, so this changes a logarithm by at most 0.012.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from gradscore.verdict.learning.interpolation import Interpolation
from gradscore.verdict.learning.verdict_nodes import VerdictNodes

FloatArray = npt.NDArray[np.float64]

SMALLEST_SCALE = 1e-36
LARGEST = 1e100  # value whose square is finite
QUANTILES = 33
LOWEST_QUANTILE = 0.01
# Features come from float32 arithmetic, so a feature with a smaller relative spread is constant but for rounding.
SMALLEST_SPREAD = 1e-6


class Transform(ABC):
    """A map from features [N, F] to standardised features [N, K].

    `columns` holds the indices of the K features.
    """

    columns: npt.NDArray[np.int64]

    @classmethod
    @abstractmethod
    def fit(cls, features: FloatArray, columns: npt.NDArray[np.int64]) -> "Transform":
        """Learn the transform of these columns from finite training rows [N, F], and drop constant ones."""

    @abstractmethod
    def __call__(self, features: FloatArray) -> FloatArray:
        """Transform [N, F] to float64 [N, K]."""

    @abstractmethod
    def only(self, kept: npt.NDArray[np.int64]) -> "Transform":
        """Return the same transform for some of its K columns."""

    @abstractmethod
    def emit(self, emit: VerdictNodes, features: str) -> str:
        """Write the same arithmetic as ONNX nodes."""


@dataclass(frozen=True)
class SignedLog(Transform):
    """Standardised signed logarithm: z = (sign(x)·log(1 + |x|/scale) − mean) / std.

    Attributes
    ----------
    columns : int64 [K]
        Indices into the F features. Constant features are left out.
    scale, mean, std : float64 [K]
        Parameters of each column.
    """

    columns: npt.NDArray[np.int64]
    scale: FloatArray
    mean: FloatArray
    std: FloatArray

    @classmethod
    def fit(cls, features: FloatArray, columns: npt.NDArray[np.int64]) -> "SignedLog":
        """Compute scale, mean and deviation from finite training rows [N, F], and drop constant columns."""
        chosen = features[:, columns]
        scale = np.array([_scale(column) for column in chosen.T])
        logs = _signed_log(chosen, scale)
        mean, std = logs.mean(axis=0), logs.std(axis=0)
        kept = std > SMALLEST_SPREAD
        return cls(columns[kept], scale[kept], mean[kept], std[kept])

    def __call__(self, features: FloatArray) -> FloatArray:
        """Transform [N, F] to float64 [N, K]."""
        z = _signed_log(features[:, self.columns], self.scale)
        z -= self.mean
        z /= self.std
        return z

    def only(self, kept: npt.NDArray[np.int64]) -> "SignedLog":
        """Return the same transform for some of its K columns."""
        return SignedLog(self.columns[kept], self.scale[kept], self.mean[kept], self.std[kept])

    def emit(self, emit: VerdictNodes, features: str) -> str:
        """Write the same arithmetic as ONNX nodes."""
        x = emit("Gather", features, self.columns, axis=1)
        logs = emit("Sub", emit("Log", emit("Add", emit("Abs", x), self.scale)), np.log(self.scale))
        return emit("Div", emit("Sub", emit("Mul", emit("Sign", x), logs), self.mean), self.std)


@dataclass(frozen=True)
class Standard(Transform):
    """Standardised features, without a logarithm: z = (x − mean) / std. For values of one scale, as pooled activations are.

    Attributes
    ----------
    columns : int64 [K]
        Indices into the F features. Constant features are left out; if all are constant, one remains.
    mean, std : float64 [K]
        Parameters of each column.
    """

    columns: npt.NDArray[np.int64]
    mean: FloatArray
    std: FloatArray

    @classmethod
    def fit(cls, features: FloatArray, columns: npt.NDArray[np.int64]) -> "Standard":
        """Compute mean and deviation from finite training rows [N, F], and drop constant columns."""
        chosen = np.clip(features[:, columns], -LARGEST, LARGEST)
        mean, std = chosen.mean(axis=0), chosen.std(axis=0)
        kept = std > SMALLEST_SPREAD * np.maximum(np.abs(mean), std.max(initial=0.0))
        if not kept.any():
            return cls(columns[:1], mean[:1], np.ones(1))
        return cls(columns[kept], mean[kept], std[kept])

    def __call__(self, features: FloatArray) -> FloatArray:
        """Transform [N, F] to float64 [N, K]."""
        return np.asarray((np.clip(features[:, self.columns], -LARGEST, LARGEST) - self.mean) / self.std)

    def only(self, kept: npt.NDArray[np.int64]) -> "Standard":
        """Return the same transform for some of its K columns."""
        return Standard(self.columns[kept], self.mean[kept], self.std[kept])

    def emit(self, emit: VerdictNodes, features: str) -> str:
        """Write the same arithmetic as ONNX nodes."""
        inside = emit.clipped(emit("Gather", features, self.columns, axis=1), LARGEST)
        return emit("Div", emit("Sub", inside, self.mean), self.std)


@dataclass(frozen=True)
class Quantile(Transform):
    """Normal scores of the signed logarithms, linear between 33 quantiles of the training rows, standardised.

    The result does not depend on a feature's distribution, so an outlier has no leverage. For the same reason, all
    values beyond those of the training rows are equal. The signed logarithm keeps them apart.

    Attributes
    ----------
    columns : int64 [K]
        Indices into the F features, the same as those of `logs`.
    logs : SignedLog
        Standardised signed logarithms.
    scores : Interpolation
        Map from the logarithms to standardised normal scores.
    """

    columns: npt.NDArray[np.int64]
    logs: SignedLog
    scores: Interpolation

    @classmethod
    def fit(cls, features: FloatArray, columns: npt.NDArray[np.int64]) -> "Quantile":
        """Compute quantiles from finite training rows [N, F].

        Equal quantiles become one knot, with the mean score.
        """
        logs = SignedLog.fit(features, columns)
        z = logs(features)
        shares = np.linspace(0.0, 1.0, QUANTILES)
        normal = np.array([NormalDist().inv_cdf((i + 0.5) / QUANTILES) for i in range(QUANTILES)])
        raw = [_merged(np.quantile(column, shares), normal) for column in z.T]
        if not raw:
            return cls(logs.columns, logs, Interpolation.through([]))
        scores = Interpolation.through(raw)(z)
        mean, std = scores.mean(axis=0), np.where(scores.std(axis=0) > 0, scores.std(axis=0), 1.0)
        knots = [(x, (y - m) / s) for (x, y), m, s in zip(raw, mean, std, strict=True)]
        return cls(logs.columns, logs, Interpolation.through(knots))

    def __call__(self, features: FloatArray) -> FloatArray:
        """Transform [N, F] to float64 [N, K]."""
        return self.scores(self.logs(features))

    def only(self, kept: npt.NDArray[np.int64]) -> "Quantile":
        """Return the same transform for some of its K columns."""
        return Quantile(self.columns[kept], self.logs.only(kept), self.scores.only(kept))

    def emit(self, emit: VerdictNodes, features: str) -> str:
        """Write both steps as ONNX nodes."""
        return self.scores.emit(emit, self.logs.emit(emit, features))


TRANSFORMS: Mapping[str, type[Transform]] = MappingProxyType({"signed-log": SignedLog, "quantile": Quantile})


def _merged(knots: FloatArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    values, group = np.unique(knots, return_inverse=True)
    return values, np.bincount(group, weights=scores) / np.bincount(group)


def _signed_log(x: FloatArray, scale: FloatArray) -> FloatArray:
    """Return sign(x)·log(1 + |x|/scale), as a difference of logarithms, which no finite x overflows."""
    logs = np.abs(x)
    logs += scale
    np.log(logs, out=logs)
    logs -= np.log(scale)
    return np.copysign(logs, x, out=logs)


def _scale(column: FloatArray) -> float:
    nonzero = column[column != 0]
    if not len(nonzero):
        return 1.0
    positive = float(np.mean(nonzero > 0))
    quantile = max(LOWEST_QUANTILE, min(positive, 1 - positive))
    return max(SMALLEST_SCALE, float(np.quantile(np.abs(nonzero), quantile)))
