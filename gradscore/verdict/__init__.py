"""Meta-classifiers over gradient features: fit, calibrate, apply, explain, save as ONNX."""

from gradscore.verdict.calibration import CALIBRATIONS
from gradscore.verdict.explanation import Importance, explain
from gradscore.verdict.heads import EXPORTERS
from gradscore.verdict.methods import METHODS
from gradscore.verdict.model import Verdict
from gradscore.verdict.thresholds import THRESHOLDS
from gradscore.verdict.transforms import TRANSFORMS

__all__ = [
    "CALIBRATIONS",
    "EXPORTERS",
    "METHODS",
    "THRESHOLDS",
    "TRANSFORMS",
    "Importance",
    "Verdict",
    "explain",
]
