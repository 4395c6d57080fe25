"""Summary of a fit, stored in the verdict as plain values for JSON."""

import importlib.metadata
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradscore.verdict.learning.classifiers.estimators import Estimator
from gradscore.verdict.learning.rows import LabelledRows
from gradscore.verdict.learning.settings import Settings
from gradscore.verdict.learning.thresholds import describe


def counted(rows: LabelledRows, excluded: int) -> dict[str, Any]:
    """Return the numbers of rows of a fit."""
    return {
        "rows": len(rows),
        "correct": int(rows.right.sum()),
        "incorrect": int((~rows.right).sum()),
        "known": int(rows.known.sum()),
        "unknown": int((~rows.known).sum()),
        "kinds_of_unknown": len(rows.kinds),
        "excluded_not_finite": excluded,
    }


def asked(settings: Settings) -> dict[str, Any]:
    """Return the requested settings and the package versions."""
    return {
        "seed": settings.seed,
        "ensemble": settings.ensemble,
        "transform": settings.transform,
        "calibration": settings.calibration,
        "unknown_share": settings.unknown_share,
        "threshold_rule": describe(settings.rule),
        "versions": {name: importlib.metadata.version(name) for name in ("gradscore", "numpy", "onnx", "scikit-learn")},
    }


def learned(members: Sequence[Estimator], used: list[str]) -> dict[str, Any]:
    """Return the fitted classifier's class, settings, features and coefficients."""
    return {
        "estimator": type(members[0]).__name__,
        "hyper_parameters": _plain(members[0].get_params()),
        "used_features": used,
        "coefficients": _coefficients(members, used),
    }


def _coefficients(members: Sequence[Estimator], names: Sequence[str]) -> dict[str, float] | None:
    """Return the non-zero weights of a linear classifier, largest first, or None for other classifiers."""
    if not hasattr(members[0], "coef_"):
        return None
    weights = np.mean([np.ravel(member.coef_) for member in members], axis=0)
    order = np.argsort(-np.abs(weights), kind="stable")
    return {names[index]: float(weights[index]) for index in order if weights[index] != 0}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return values that JSON can hold. Infinity and NaN become text."""
    simple = (bool, int, str, type(None))
    return {key: value if isinstance(value, simple) or _finite(value) else str(value) for key, value in values.items()}


def _finite(value: object) -> bool:
    return isinstance(value, float) and bool(np.isfinite(value))
