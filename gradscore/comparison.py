"""Confidences side by side: maximum softmax, entropy and any number of verdicts on the same cases."""

from collections.abc import Mapping

import numpy as np

from gradscore.cases import Cases
from gradscore.evaluation import Evaluation, evaluate
from gradscore.features import require_same_features, require_same_model
from gradscore.verdict import Verdict


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
