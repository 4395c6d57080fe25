"""Verdicts: meta-classifiers over gradient features, to fit, calibrate, apply, explain and save as ONNX."""

from gradscore.verdict.explanation import Importance, explain
from gradscore.verdict.learning.calibration import CALIBRATIONS
from gradscore.verdict.learning.classifiers.estimators import EXPORTERS
from gradscore.verdict.learning.classifiers.methods import METHODS
from gradscore.verdict.learning.thresholds import THRESHOLDS
from gradscore.verdict.learning.transforms import TRANSFORMS
from gradscore.verdict.learning.trials.recipes import AUTO, RECIPES
from gradscore.verdict.model import Verdict

__all__ = [
    "AUTO",
    "CALIBRATIONS",
    "EXPORTERS",
    "METHODS",
    "RECIPES",
    "THRESHOLDS",
    "TRANSFORMS",
    "Importance",
    "Verdict",
    "explain",
]
