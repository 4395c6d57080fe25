"""Meta-classifiers over gradient features: fit, apply, save as ONNX."""

from gradscore.verdict.heads import EXPORTERS
from gradscore.verdict.methods import METHODS
from gradscore.verdict.model import Verdict

__all__ = ["EXPORTERS", "METHODS", "Verdict"]
