"""Calibration maps from a meta-classifier's P(correct) to a calibrated one, learned from held-out rows.

Each map is one class in `CALIBRATIONS`. `fit` reads held-out P(correct) and outcomes. The call and `emit` apply the map.

The held-out probabilities come from the classifiers of all cross-validation folds, pooled, as in scikit-learn's
`CalibratedClassifierCV(ensemble=False)`. If classifiers vary much from fit to fit, as networks on a few hundred rows do,
those of the folds are more overconfident than the final one, and the map corrects too much. On fresh rows, Platt
scaling lowered the log loss of `nn` by 4 % with 150 rows, not at all with 300, and by a quarter with 1,000 rows of the
paper's features.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from gradscore.verdict.learning.interpolation import Interpolation
from gradscore.verdict.learning.verdict_nodes import VerdictNodes

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LEAST_PROBABILITY = 1e-12  # keeps the log odds of P(correct) finite


class Calibration(ABC):
    """A map from P(correct) [N] to calibrated P(correct) [N]."""

    @classmethod
    @abstractmethod
    def fit(cls, p: FloatArray, correct: BoolArray) -> "Calibration":
        """Learn the map from held-out rows of both classes."""

    @abstractmethod
    def __call__(self, p: FloatArray) -> FloatArray:
        """Apply the map."""

    @abstractmethod
    def emit(self, emit: VerdictNodes, p: str) -> str:
        """Write the same arithmetic as ONNX nodes."""


@dataclass(frozen=True)
class Uncalibrated(Calibration):
    """No calibration: P(correct) of the meta-classifier, unchanged."""

    @classmethod
    def fit(cls, p: FloatArray, correct: BoolArray) -> "Uncalibrated":
        """Learn nothing."""
        del p, correct
        return cls()

    def __call__(self, p: FloatArray) -> FloatArray:
        """Return p."""
        return p

    def emit(self, emit: VerdictNodes, p: str) -> str:
        """Write nothing."""
        del emit
        return p


@dataclass(frozen=True)
class Platt(Calibration):
    """σ(slope·logit(p) + offset), by maximum likelihood with Platt's softened targets (Platt 1999)."""

    slope: float
    offset: float

    @classmethod
    def fit(cls, p: FloatArray, correct: BoolArray, weight: FloatArray | None = None) -> "Platt":
        """Fit a logistic curve to the log odds of rows, which may have weights [N].

        Each row counts as both outcomes, weighted by its softened target.
        """
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - loaded for fitting only

        right, wrong = int(correct.sum()), int((~correct).sum())
        target = np.where(correct, (right + 1) / (right + 2), 1 / (wrong + 2))
        odds = np.tile(_log_odds(p), 2)[:, None]
        outcome, share = np.repeat([True, False], len(p)), np.r_[target, 1 - target]
        share = share if weight is None else share * np.tile(weight, 2)
        curve = LogisticRegression(C=np.inf, tol=1e-8, max_iter=5000).fit(odds, outcome, sample_weight=share)
        return cls(float(curve.coef_[0, 0]), float(curve.intercept_[0]))

    def __call__(self, p: FloatArray) -> FloatArray:
        """Apply the curve."""
        return np.asarray(np.exp(-np.logaddexp(0.0, -(self.slope * _log_odds(p) + self.offset))))

    def emit(self, emit: VerdictNodes, p: str) -> str:
        """Write the curve."""
        inside = emit("Min", emit("Max", p, np.float64(LEAST_PROBABILITY)), np.float64(1 - LEAST_PROBABILITY))
        odds = emit("Sub", emit("Log", inside), emit("Log", emit("Sub", np.float64(1), inside)))
        return emit("Sigmoid", emit("Add", emit("Mul", odds, np.float64(self.slope)), np.float64(self.offset)))


@dataclass(frozen=True)
class Isotonic(Calibration):
    """Isotonic regression, with linear interpolation between its steps (Zadrozny and Elkan 2002).

    It needs some hundreds of rows. It makes ties: all rows on one step get the same P(correct).
    """

    curve: Interpolation

    @classmethod
    def fit(cls, p: FloatArray, correct: BoolArray) -> "Isotonic":
        """Fit scikit-learn's `IsotonicRegression`."""
        from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415 - loaded for fitting only

        fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(p, correct.astype(np.float64))
        return cls(Interpolation.through([(fitted.X_thresholds_, fitted.y_thresholds_)]))

    def __call__(self, p: FloatArray) -> FloatArray:
        """Apply the function."""
        return self.curve(p[:, None])[:, 0]

    def emit(self, emit: VerdictNodes, p: str) -> str:
        """Write the function."""
        column = emit("Reshape", p, np.array([-1, 1], dtype=np.int64))
        return emit("Reshape", self.curve.emit(emit, column), np.array([-1], dtype=np.int64))


@dataclass(frozen=True)
class CentredIsotonic(Calibration):
    """Isotonic regression behind a Platt curve, with one knot at the centre of each step, so that no two rows tie.

    Oron and Flournoy 2017, "Centered Isotonic Regression: Point and Interval Estimation for Dose-Response Studies".
    """

    curve: Platt
    steps: Interpolation

    @classmethod
    def fit(cls, p: FloatArray, correct: BoolArray, weight: FloatArray | None = None) -> "CentredIsotonic":
        """Fit the curve, then scikit-learn's `IsotonicRegression` to its values."""
        from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415 - loaded for fitting only

        share = np.ones(len(p)) if weight is None else weight
        curve = Platt.fit(p, correct, share)
        x = curve(p)
        limits = 1 / ((~correct).sum() + 2), (correct.sum() + 1) / (correct.sum() + 2)  # no step is certain
        steps = IsotonicRegression(y_min=limits[0], y_max=limits[1]).fit(x, correct.astype(np.float64), share)
        fitted = steps.predict(x)
        levels, step = np.unique(fitted, return_inverse=True)
        centres = np.bincount(step, share * x) / np.bincount(step, share)
        kept = (centres > 0) & (centres < 1)
        return cls(curve, Interpolation.through([(np.r_[0.0, centres[kept], 1.0], np.r_[0.0, levels[kept], 1.0])]))

    def __call__(self, p: FloatArray) -> FloatArray:
        """Apply both."""
        return self.steps(self.curve(p)[:, None])[:, 0]

    def emit(self, emit: VerdictNodes, p: str) -> str:
        """Write both."""
        column = emit("Reshape", self.curve.emit(emit, p), np.array([-1, 1], dtype=np.int64))
        return emit("Reshape", self.steps.emit(emit, column), np.array([-1], dtype=np.int64))


CALIBRATIONS: Mapping[str, type[Calibration]] = MappingProxyType(
    {"none": Uncalibrated, "platt": Platt, "isotonic": Isotonic}
)


def _log_odds(p: FloatArray) -> FloatArray:
    inside = np.clip(p, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return np.asarray(np.log(inside) - np.log(1 - inside))
