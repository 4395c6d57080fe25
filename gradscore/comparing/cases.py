"""Score tables and true labels -> cases for fitting and evaluation: features and outcomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from gradscore.comparing import labels
from gradscore.errors import InputError, MismatchError
from gradscore.tables.table import ScoreTable, require_same_features, require_same_model, require_same_reference

KNOWN = "known"  # the group of rows whose classes the model has
NO_TABLES: Mapping[str, ScoreTable] = MappingProxyType({})


@dataclass(frozen=True)
class Cases:
    """Rows with a known outcome. Rows with an error are left out.

    Attributes
    ----------
    features
        float64 [N, F].
    correct
        bool [N], whether each prediction is right. Always False for unknown concepts.
    group
        int64 [N], index into `group_names`.
    group_names
        "known", then the name of each table of unknown concepts.
    ids
        Names of the N inputs, unique within a group.
    label, truth
        int64 [N], predicted and true class. The true class is −1 for unknown concepts.
    table
        The table of the known rows. All rows have its model and features.
    left_out
        Number of rows left out because of an error.
    """

    features: NDArray[np.float64]
    correct: NDArray[np.bool_]
    group: NDArray[np.int64]
    group_names: tuple[str, ...]
    ids: tuple[str, ...]
    label: NDArray[np.int64]
    truth: NDArray[np.int64]
    table: ScoreTable
    left_out: int

    def __len__(self) -> int:
        return len(self.correct)

    def finite(self) -> "Cases":
        """Return the rows whose features are all finite. The other rows have no confidence."""
        rows = np.flatnonzero(np.isfinite(self.features).all(axis=1))
        return replace(
            self,
            features=self.features[rows],
            correct=self.correct[rows],
            group=self.group[rows],
            ids=tuple(self.ids[row] for row in rows.tolist()),
            label=self.label[rows],
            truth=self.truth[rows],
        )


def collect(
    known: ScoreTable,
    unknown: Mapping[str, ScoreTable] = NO_TABLES,
    *,
    label_file: Path | None = None,
    unknown_labels: labels.OnUnknown = "error",
) -> Cases:
    """Join labelled rows of known concepts with tables of unknown concepts.

    Every prediction for an unknown concept counts as incorrect.

    Parameters
    ----------
    known
        Score table of inputs whose classes the model has.
    unknown
        Score tables of unknown concepts, by name.
    label_file
        CSV file with the columns `id` and `label`. Without it, the folders of the inputs name their classes.
    unknown_labels
        What a label in `known` that is not a class of the model means: "error", or "incorrect" for a wrong prediction.

    Raises
    ------
    InputError
        A label is missing or is not a class of the model, or a table of unknown concepts is named "known".
    MismatchError
        The tables come from different models, or the known table has no class names.
    """
    if KNOWN in unknown:
        raise InputError(f"a table of unknown concepts may not be named {KNOWN!r}: rename its file")
    for name, table in unknown.items():
        require_same_features(known.feature_names, table.feature_names, "the known table", f"unknown table {name}")
        require_same_model(known.model_fingerprint, table.model_fingerprint, "the known table", f"unknown table {name}")
        require_same_reference(
            known.reference_sha256, table.reference_sha256, "the known table", f"unknown table {name}"
        )  # fmt: skip
    tables = (known, *unknown.values())
    rows = [np.flatnonzero(table.valid()) for table in tables]
    sizes = [len(part) for part in rows]
    truth = np.full(sum(sizes), labels.UNKNOWN, dtype=np.int64)
    truth[: sizes[0]] = true_labels(known, label_file, unknown_labels)[rows[0]]
    label = np.concatenate([table.labels()[part] for table, part in zip(tables, rows, strict=True)])
    return Cases(
        features=np.concatenate([table.features()[part] for table, part in zip(tables, rows, strict=True)]),
        correct=labels.agreement(label, truth),
        group=np.repeat(np.arange(len(tables)), sizes),
        group_names=(KNOWN, *unknown),
        ids=tuple(str(table.table.column("id")[i]) for table, part in zip(tables, rows, strict=True) for i in part),
        label=label,
        truth=truth,
        table=known,
        left_out=sum(len(table) for table in tables) - sum(sizes),
    )


def true_labels(
    table: ScoreTable, label_file: Path | None, unknown_labels: labels.OnUnknown = "error"
) -> NDArray[np.int64]:
    """Return the true class of each row, int64 [N], from a CSV file or from folders.

    Raises
    ------
    MismatchError
        The table has no class names.
    InputError
        A label is missing or is not a class of the model.
    """
    names = table.class_names
    if names is None:
        raise MismatchError("the score table has no class names: score again with this version")
    if label_file is not None:
        return labels.from_csv(label_file, table.ids(), names, unknown=unknown_labels)
    return labels.from_folders(table.ids(), names, unknown=unknown_labels)


def sample(table: ScoreTable, count: int, *, seed: int) -> ScoreTable:
    """Return `count` rows without an error, drawn without replacement, in the table's order.

    Raises
    ------
    InputError
        The table has fewer scored rows than `count`, or `count` is not positive.
    """
    rows = np.flatnonzero(table.valid())
    if count < 1 or count > len(rows):
        raise InputError(f"cannot draw {count} rows of {len(rows)} scored ones: give a smaller number after the colon")
    drawn = np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))
    return ScoreTable(table.table.take(drawn), table.metadata)


def read_unknown(texts: Sequence[str], *, seed: int) -> dict[str, ScoreTable]:
    """Read tables of unknown concepts from PATH or PATH:N.

    The name of a table is its file name or its path.

    Raises
    ------
    InputError
        A table cannot be read, has fewer than N scored rows, or is given twice.
    """
    parsed = [_path_and_count(text) for text in texts]
    stems = [path.stem for path, _ in parsed]
    tables: dict[str, ScoreTable] = {}
    for path, count in parsed:
        name = path.stem if stems.count(path.stem) == 1 and path.stem != KNOWN else str(path)
        if name in tables:
            raise InputError(f"the table of unknown concepts {path} is given twice (--unknown)")
        table = ScoreTable.read(path)
        tables[name] = table if count is None else sample(table, count, seed=seed)
    return tables


def _path_and_count(text: str) -> tuple[Path, int | None]:
    path, _, count = text.rpartition(":")
    if not path or not count.isdecimal() or Path(text).exists():
        return Path(text), None
    return Path(path), int(count)
