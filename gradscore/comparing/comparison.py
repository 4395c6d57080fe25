"""Comparison of confidences, baselines and verdicts, on all cases and per group."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore.comparing.cases import Cases
from gradscore.detectors import DETECTORS
from gradscore.errors import InputError
from gradscore.metrics.evaluation import Evaluation, evaluate
from gradscore.tables.extra_columns import columns_read
from gradscore.tables.table import require_same_model, require_same_reference
from gradscore.verdict import Verdict

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Baseline:
    """A confidence that is one feature.

    `sign` is 1 if larger means more confident, −1 if less.
    """

    feature: str
    sign: int


BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {
        "max_softmax": Baseline("residual", -1),
        "entropy": Baseline("entropy", -1),
        "max_logit": Baseline("max_logit", 1),
        "energy": Baseline("energy", 1),
        "margin": Baseline("margin", 1),
        "gradnorm": Baseline("gradnorm", 1),
        **{name: Baseline(name, 1) for name in DETECTORS if name not in ("max_softmax", "entropy")},
    }
)
"""Confidences that need no verdict. A baseline is available if the table has its feature. The residual keeps the order of
maximum softmax values that round to 1."""
NO_COLUMNS: Mapping[str, int] = MappingProxyType({})
CALIBRATION = ("ece", "brier")  # defined for probabilities only: of the baselines, for maximum softmax alone


def load_verdicts(paths: Sequence[Path]) -> dict[str, Verdict]:
    """Load verdicts by name.

    The name is the file name without suffix, or the whole path if another confidence has that name.

    Raises
    ------
    ModelError
        A file is not a verdict.
    InputError
        A path is given twice.
    """
    count = Counter([*BASELINES, *(path.stem for path in paths)])
    names = [path.stem if count[path.stem] == 1 else str(path) for path in paths]
    if len(set(names)) < len(names):
        raise InputError("a verdict is given twice: name each once with --verdict")
    return {name: Verdict.load(path) for name, path in zip(names, paths, strict=True)}


@dataclass(frozen=True)
class GroupedEvaluation:
    """The evaluation of one confidence, pooled over all cases and per group.

    The evaluation of a group compares all positives with the negatives of that group. The mean of the groups' AUROC,
    weighted by their negatives, is therefore the pooled AUROC. Groups without negatives are left out.
    """

    pooled: Evaluation
    groups: Mapping[str, Evaluation]

    def as_dict(self) -> dict[str, Any]:
        """Return the pooled values, and those of each group under `groups`, for JSON."""
        return {**self.pooled.as_dict(), "groups": {name: one.as_dict() for name, one in self.groups.items()}}


def compare(
    cases: Cases,
    verdicts: Mapping[str, Verdict],
    *,
    columns: Mapping[str, int] = NO_COLUMNS,
    convention: str = "hendrycks",
    target: str = "correct",
    resamples: int = 0,
    seed: int = 0,
) -> dict[str, GroupedEvaluation]:
    """Evaluate each confidence on the rows whose features are all finite.

    Parameters
    ----------
    cases : Cases
        Labelled rows, from `collect`.
    verdicts : mapping of str to Verdict
        Verdicts by name. The baselines in the table are always evaluated.
    columns : mapping of str to int
        Further features that are confidences of their own. 1: a larger value means more confident, −1: less.
    target : {"correct", "known", "misclassified"}
        What the confidences should separate, a key of `TARGETS`.
    convention, resamples, seed
        As in `evaluate`.

    Returns
    -------
    dict of str to GroupedEvaluation
        Evaluations by the name of the confidence, with `max_softmax` first.

    Raises
    ------
    MismatchError
        A verdict belongs to another scoring model.
    InputError
        All cases are positive, all are negative, or a name is unknown.
    """
    if target not in TARGETS:
        raise InputError(f"unknown target {target!r}; choose one of: {', '.join(TARGETS)}")
    usable = cases.finite()
    kept, positive = TARGETS[target](usable)
    settings = {"convention": convention, "resamples": resamples, "seed": seed}
    rows = positive[kept], usable.group[kept], usable.group_names
    found = {
        name: _grouped(values[kept], *rows, settings) for name, values in confidences(usable, verdicts, columns).items()
    }
    softmax = _grouped(1.0 - usable.features[kept, usable.table.feature_names.index("residual")], *rows, settings)
    return {
        "max_softmax": _with_calibration(found.pop("max_softmax"), softmax),
        **{name: one if name in verdicts else _with_calibration(one, None) for name, one in found.items()},
    }


def confidences(
    cases: Cases, verdicts: Mapping[str, Verdict], columns: Mapping[str, int] = NO_COLUMNS
) -> dict[str, FloatArray]:
    """Return each confidence [N] by name: the baselines in the table, further columns, then the verdicts.

    A higher confidence means more likely correct.

    Raises
    ------
    MismatchError
        A verdict belongs to another scoring model.
    InputError
        A verdict has the name of a baseline or a column.
    """
    names = cases.table.feature_names
    own = {name: Baseline(name, sign) for name, sign in columns.items()}
    found = {
        name: baseline.sign * cases.features[:, names.index(baseline.feature)]
        for name, baseline in {**BASELINES, **own}.items()
        if baseline.feature in names
    }
    for name, verdict in verdicts.items():
        if name in BASELINES or name in columns:
            kind = "baseline" if name in BASELINES else "column of --extra"
            raise InputError(f"a verdict may not be named {name!r}, because a {kind} has that name: rename it")
        read = columns_read(verdict.feature_names, cases.table, f"verdict {name}")
        require_same_model(verdict.model_fingerprint, cases.table.model_fingerprint, f"verdict {name}", "the table")
        if verdict.reference_sha256:
            require_same_reference(
                verdict.reference_sha256, cases.table.reference_sha256, f"verdict {name}", "the table"
            )
        found[name] = verdict.apply(cases.features[:, read])
    return found


def _correct(cases: Cases) -> tuple[BoolArray, BoolArray]:
    return np.ones(len(cases), dtype=np.bool_), cases.correct


def _in_distribution(cases: Cases) -> tuple[BoolArray, BoolArray]:
    return np.ones(len(cases), dtype=np.bool_), cases.group == 0


def _misclassified(cases: Cases) -> tuple[BoolArray, BoolArray]:
    return cases.group == 0, cases.correct


TARGETS: Mapping[str, Any] = MappingProxyType(
    {
        "correct": _correct,
        "known": _in_distribution,
        "misclassified": _misclassified,
    }
)
"""What a confidence should separate. `correct`: correct predictions from all others. `known`: known concepts from unknown
ones, whatever the prediction (out-of-distribution detection). `misclassified`: correct from wrong predictions, among known
concepts alone. Each function returns two masks over all rows: the rows to use, and the positive rows."""


def _grouped(
    values: FloatArray,
    positive: BoolArray,
    group: NDArray[np.int64],
    names: tuple[str, ...],
    settings: Mapping[str, Any],
) -> GroupedEvaluation:
    groups = {}
    for index, name in enumerate(names):
        taken = positive | (group == index)
        if not positive[taken].all():
            groups[name] = evaluate(values[taken], positive[taken], **settings)
    return GroupedEvaluation(evaluate(values, positive, **settings), groups)


def _with_calibration(ranked: GroupedEvaluation, probable: GroupedEvaluation | None) -> GroupedEvaluation:
    """Return `ranked` with the calibration metrics of `probable`, or without any if `probable` is None."""
    others = probable.groups if probable else {}
    groups = {name: _calibrated(one, others.get(name)) for name, one in ranked.groups.items()}
    return GroupedEvaluation(_calibrated(ranked.pooled, probable.pooled if probable else None), groups)


def _calibrated(ranked: Evaluation, probable: Evaluation | None) -> Evaluation:
    intervals = {name: interval for name, interval in ranked.intervals.items() if name not in CALIBRATION}
    if probable is None:
        return replace(ranked, ece=None, brier=None, intervals=intervals)
    intervals |= {name: probable.intervals[name] for name in CALIBRATION if name in probable.intervals}
    return replace(ranked, ece=probable.ece, brier=probable.brier, intervals=intervals)
