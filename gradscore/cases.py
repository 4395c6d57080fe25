"""Score tables and true labels -> cases: features, and which predictions were right; for fitting and evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gradscore import labels
from gradscore.errors import InputError, MismatchError
from gradscore.features import ScoreTable, require_same_features, require_same_model


@dataclass(frozen=True)
class Cases:
    """Rows with a known outcome, inputs with an error left out.

    Attributes
    ----------
    features
        float64 [N, F].
    correct
        bool [N]; always False for unknown concepts.
    table
        The known rows' table, whose model and features all share.
    left_out
        Number of rows with an error.
    """

    features: NDArray[np.float64]
    correct: NDArray[np.bool_]
    table: ScoreTable
    left_out: int


def collect(
    known: ScoreTable,
    unknown: Sequence[ScoreTable] = (),
    *,
    label_file: Path | None = None,
    unknown_labels: labels.OnUnknown = "error",
) -> Cases:
    """Join rows of known concepts, labelled by folder or CSV, and rows of unknown ones, which are never right.

    Raises
    ------
    InputError, MismatchError
        A label is missing or no class of the model, or the tables come from different models.
    """
    for table in unknown:
        require_same_features(known.feature_names, table.feature_names, "the known table", "an unknown table")
        require_same_model(known.model_fingerprint, table.model_fingerprint, "the known table", "an unknown table")
    correct = labels.agreement(known.labels(), true_labels(known, label_file, unknown_labels))
    features = [known.features()[known.valid()], *(table.features()[table.valid()] for table in unknown)]
    outcomes = [correct[known.valid()], *(np.zeros(int(table.valid().sum()), dtype=np.bool_) for table in unknown)]
    left_out = sum(int((~table.valid()).sum()) for table in (known, *unknown))
    return Cases(np.concatenate(features), np.concatenate(outcomes), known, left_out)


def true_labels(
    table: ScoreTable, label_file: Path | None, unknown_labels: labels.OnUnknown = "error"
) -> NDArray[np.int64]:
    """Return each row's true class from a CSV, or from its folder where no CSV is given."""
    names = table.class_names
    if names is None:
        raise MismatchError("the score table names no classes: score again with this version")
    if label_file is not None:
        return labels.from_csv(label_file, table.ids(), names, unknown=unknown_labels)
    return labels.from_folders(table.ids(), names, unknown=unknown_labels)


def sample(table: ScoreTable, count: int, *, seed: int) -> ScoreTable:
    """Return `count` rows without an error, drawn without replacement, in their own order."""
    rows = np.flatnonzero(table.valid())
    if count < 1 or count > len(rows):
        raise InputError(f"cannot draw {count} rows of {len(rows)} scored ones: give a smaller number after the colon")
    drawn = np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))
    return ScoreTable(table.table.take(drawn), table.metadata)
