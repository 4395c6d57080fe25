"""Settings of a fit."""

from collections.abc import Sequence
from dataclasses import dataclass

from gradscore.verdict.learning.classifiers.estimators import Estimator
from gradscore.verdict.learning.thresholds import BALANCED, Rule


@dataclass(frozen=True)
class Settings:
    """The settings of a fit by name, as in the parameters of `Verdict.fit`."""

    method: str | Estimator = "auto"
    transform: str = "signed-log"
    calibration: str = "none"
    select: Sequence[str] | None = None
    folds: int = 5
    ensemble: int = 1
    seed: int = 0
    rule: Rule = BALANCED
    unknown_share: float = 0.02
