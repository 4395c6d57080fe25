"""Features before any meta-classifier sees them: signed logarithm, then standardised.

Gradient norms span thirty decades, so x ↦ sign(x)·log(1 + |x|/ε), with ε per feature from the training rows. A feature
of one sign gets a small ε (the 1 % quantile of |x|) and becomes its logarithm. One of both signs gets a larger ε, up to
the median, for there the values near zero are crossings and no scale of their own.

All is in double precision, in the ONNX graph too: in single precision a logarithm of 1e-30 errs by 4e-6, and the large
weights of an unpenalised meta-classifier turn that into visible errors of P(correct). A float32 graph that a verdict is
fused into casts its [N, F] features up, which costs nothing. Such a graph may flush values below 1.2e-38 to zero; ε is
never below 1e-36, so this moves a logarithm by at most 0.012.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradscore.verdict.emitter import Emitter

FloatArray = npt.NDArray[np.float64]

SMALLEST_SCALE = 1e-36
LOWEST_QUANTILE = 0.01
# Features come from float32 arithmetic: a relative spread below this is rounding noise and counts as constant.
SMALLEST_SPREAD = 1e-6


@dataclass(frozen=True)
class SignedLog:
    """z = (sign(x)·log(1 + |x|/scale) − mean) / std, over the columns kept.

    Attributes
    ----------
    columns : int64 [K], indices into the F features; constant ones are left out
    scale, mean, std : float64 [K]
    """

    columns: npt.NDArray[np.int64]
    scale: FloatArray
    mean: FloatArray
    std: FloatArray

    @classmethod
    def fit(cls, features: FloatArray, columns: npt.NDArray[np.int64]) -> "SignedLog":
        """Take scales, means and deviations from finite training rows [N, F], and drop constant columns."""
        chosen = features[:, columns]
        scale = np.array([_scale(column) for column in chosen.T])
        logs = _signed_log(chosen, scale)
        mean, std = logs.mean(axis=0), logs.std(axis=0)
        kept = std > SMALLEST_SPREAD
        return cls(columns[kept], scale[kept], mean[kept], std[kept])

    def __call__(self, features: FloatArray) -> FloatArray:
        """Transform [N, F] to float64 [N, K]."""
        return np.asarray((_signed_log(features[:, self.columns], self.scale) - self.mean) / self.std)

    def only(self, kept: npt.NDArray[np.int64]) -> "SignedLog":
        """Return the same transform of some of its K columns."""
        return SignedLog(self.columns[kept], self.scale[kept], self.mean[kept], self.std[kept])

    def emit(self, emit: Emitter, features: str) -> str:
        """Write the same arithmetic as ONNX nodes."""
        x = emit("Gather", features, self.columns, axis=1)
        logs = emit("Sub", emit("Log", emit("Add", emit("Abs", x), self.scale)), np.log(self.scale))
        return emit("Div", emit("Sub", emit("Mul", emit("Sign", x), logs), self.mean), self.std)


def _signed_log(x: FloatArray, scale: FloatArray) -> FloatArray:
    """Return sign(x)·log(1 + |x|/scale), written as a difference of logarithms that no finite x overflows."""
    return np.asarray(np.sign(x) * (np.log(np.abs(x) + scale) - np.log(scale)))


def _scale(column: FloatArray) -> float:
    nonzero = column[column != 0]
    if not len(nonzero):
        return 1.0
    positive = float(np.mean(nonzero > 0))
    quantile = max(LOWEST_QUANTILE, min(positive, 1 - positive))
    return max(SMALLEST_SCALE, float(np.quantile(np.abs(nonzero), quantile)))
