"""How likely is each prediction of a classifier to be right? Gradient-based scoring of any ONNX classifier."""

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
    from gradscore.batch import score_to_parquet
    from gradscore.cases import Cases, collect
    from gradscore.comparison import compare
    from gradscore.evaluation import Evaluation, evaluate
    from gradscore.export import export_classifier
    from gradscore.features import ScoreTable
    from gradscore.fusing import fuse
    from gradscore.preparation import prepare
    from gradscore.scores import ScoredBatch, Scores
    from gradscore.scoring import Scorer
    from gradscore.sources import Source, open_source
    from gradscore.unknowns import score_unknowns, synthesise
    from gradscore.verdict import Verdict, explain
    from gradscore.version import __version__

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a library says nothing until it is asked to

_LAZY = {
    "Cases": "gradscore.cases",
    "Evaluation": "gradscore.evaluation",
    "ScoreTable": "gradscore.features",
    "ScoredBatch": "gradscore.scores",
    "Scorer": "gradscore.scoring",
    "Scores": "gradscore.scores",
    "Source": "gradscore.sources",
    "Verdict": "gradscore.verdict",
    "__version__": "gradscore.version",
    "collect": "gradscore.cases",
    "compare": "gradscore.comparison",
    "evaluate": "gradscore.evaluation",
    "explain": "gradscore.verdict",
    "export_classifier": "gradscore.export",
    "fuse": "gradscore.fusing",
    "open_source": "gradscore.sources",
    "prepare": "gradscore.preparation",
    "score_to_parquet": "gradscore.batch",
    "score_unknowns": "gradscore.unknowns",
    "synthesise": "gradscore.unknowns",
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
