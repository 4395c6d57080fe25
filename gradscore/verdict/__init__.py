"""Meta-classifiers over gradient features: fit, apply, save as ONNX."""

from gradscore.verdict.heads import EXPORTERS
from gradscore.verdict.methods import METHODS
from gradscore.verdict.model import Verdict
from gradscore.verdict.thresholds import THRESHOLDS

__all__ = ["EXPORTERS", "METHODS", "THRESHOLDS", "Verdict"]
