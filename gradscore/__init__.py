"""How likely each prediction of an ONNX classifier is to be right, from its gradients."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradscore.errors import (
    BuilderError,
    GradscoreError,
    InputError,
    MismatchError,
    ModelError,
    OutputExistsError,
    RuntimeUnavailableError,
    UnsupportedOpError,
)

if TYPE_CHECKING:
    from gradscore.comparing.cases import Cases, collect
    from gradscore.comparing.comparison import compare
    from gradscore.exporting.export import export_classifier
    from gradscore.fusing.fusion import fuse
    from gradscore.inputs.sources import Source, open_source
    from gradscore.metrics.evaluation import Evaluation, evaluate
    from gradscore.preparing.preparation import prepare
    from gradscore.runs.reference_run import learn_reference
    from gradscore.runs.scoring_run import score_to_parquet
    from gradscore.scoring.scorer import Scorer
    from gradscore.scoring.scores import ScoredBatch, Scores
    from gradscore.tables.table import ScoreTable
    from gradscore.unknowns.synthesis import score_unknowns, synthesise
    from gradscore.verdict import Verdict, explain
    from gradscore.version import __version__

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a library logs nothing until the program asks for it

_LAZY = {
    "Cases": "gradscore.comparing.cases",
    "Evaluation": "gradscore.metrics.evaluation",
    "ScoreTable": "gradscore.tables.table",
    "ScoredBatch": "gradscore.scoring.scores",
    "Scorer": "gradscore.scoring",
    "Scores": "gradscore.scoring.scores",
    "Source": "gradscore.inputs.sources",
    "Verdict": "gradscore.verdict",
    "__version__": "gradscore.version",
    "collect": "gradscore.comparing.cases",
    "compare": "gradscore.comparing.comparison",
    "evaluate": "gradscore.metrics.evaluation",
    "explain": "gradscore.verdict",
    "export_classifier": "gradscore.exporting.export",
    "fuse": "gradscore.fusing.fusion",
    "learn_reference": "gradscore.runs.reference_run",
    "open_source": "gradscore.inputs.sources",
    "prepare": "gradscore.preparing.preparation",
    "score_to_parquet": "gradscore.runs.scoring_run",
    "score_unknowns": "gradscore.unknowns.synthesis",
    "synthesise": "gradscore.unknowns.synthesis",
}

__all__ = [
    "BuilderError",
    "Cases",
    "Evaluation",
    "GradscoreError",
    "InputError",
    "MismatchError",
    "ModelError",
    "OutputExistsError",
    "RuntimeUnavailableError",
    "ScoreTable",
    "ScoredBatch",
    "Scorer",
    "Scores",
    "Source",
    "UnsupportedOpError",
    "Verdict",
    "__version__",
    "collect",
    "compare",
    "evaluate",
    "explain",
    "export_classifier",
    "fuse",
    "learn_reference",
    "open_source",
    "prepare",
    "score_to_parquet",
    "score_unknowns",
    "synthesise",
]


def __getattr__(name: str) -> Any:
    """Load a public name's module at its first use, so that `import gradscore` stays light."""
    if name not in _LAZY:
        raise AttributeError(f"module 'gradscore' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
