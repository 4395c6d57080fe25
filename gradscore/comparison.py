"""Confidences side by side: maximum softmax, entropy and any number of verdicts on the same cases."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gradscore.cases import Cases
from gradscore.errors import InputError
from gradscore.evaluation import Evaluation, evaluate
from gradscore.features import require_same_features, require_same_model
from gradscore.verdict import Verdict

_BASELINES = ("max_softmax", "entropy")


def load_verdicts(paths: Sequence[Path]) -> dict[str, Verdict]:
    """Load verdicts, named by file; by whole path where another confidence has that name.

    Raises
    ------
    ModelError
        A file is no verdict.
    InputError
        A path is given twice.
    """
    count = Counter([*_BASELINES, *(path.stem for path in paths)])
    names = [path.stem if count[path.stem] == 1 else str(path) for path in paths]
    if len(set(names)) < len(names):
        raise InputError("a verdict is given twice: name each once with --verdict")
    return {name: Verdict.load(path) for name, path in zip(names, paths, strict=True)}


def compare(cases: Cases, verdicts: Mapping[str, Verdict], *, convention: str = "hendrycks") -> dict[str, Evaluation]:
    """Evaluate each confidence on the rows whose features are all finite.

    Raises
    ------
    MismatchError
        A verdict belongs to another scoring model.
    InputError
        Only correct, or only incorrect predictions are there.
    """
    names = cases.table.feature_names
    finite = np.isfinite(cases.features).all(axis=1)
    features, correct = cases.features[finite], cases.correct[finite]
    confidences = {
        "max_softmax": -features[:, names.index("residual")],
        "entropy": -features[:, names.index("entropy")],
    }
    for name, verdict in verdicts.items():
        require_same_features(verdict.feature_names, names, f"verdict {name}", "the table")
        require_same_model(verdict.model_fingerprint, cases.table.model_fingerprint, f"verdict {name}", "the table")
        confidences[name] = verdict.apply(features)
    return {name: evaluate(values, correct, convention=convention) for name, values in confidences.items()}
