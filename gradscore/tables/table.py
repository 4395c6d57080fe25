"""The score table: one row per input, with its predicted label and all features.

It is written as Parquet and read by every later step. The columns are, in order: `id`, `label`, `label_name`, every
feature in the model's order, `error`. A row with an error has nulls in all columns between `id` and `error`. The
schema's metadata holds a JSON object under the key `gradscore`, with the keys of `REQUIRED_METADATA` and others that
the writer adds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gradscore.errors import InputError, MismatchError
from gradscore.tables import arrow
from gradscore.tables.manifest import refuse_unfinished

SCHEMA_VERSION = 1
METADATA_KEY = b"gradscore"
REQUIRED_METADATA = ("schema_version", "model_fingerprint", "feature_names")
LEADING_COLUMNS = (("id", pa.string()), ("label", pa.int64()), ("label_name", pa.string()))
TRAILING_COLUMNS = (("error", pa.string()),)
# float32 ends at 1e-38, so the gradient norms of very confident predictions become 0.
PRECISIONS = {"float64": pa.float64(), "float32": pa.float32()}

FloatArray = npt.NDArray[np.float64]


def schema(feature_names: Sequence[str], metadata: Mapping[str, Any]) -> pa.Schema:
    """Return the Arrow schema of a score table.

    Parameters
    ----------
    feature_names : sequence of str
        Names in the model's order.
    metadata : mapping
        Values that JSON can hold. `model_fingerprint` is required. Usual keys are `source_fingerprint`, `class_names`,
        `backend`, `gradscore_version`, and `precision` of the features (float64 by default). `schema_version` and
        `feature_names` are added.

    Raises
    ------
    InputError
        A feature name is repeated or reserved, metadata is missing, or the precision is not one of `PRECISIONS`.
    """
    precision = metadata.get("precision", "float64")
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}: --precision takes {', '.join(PRECISIONS)}")
    reserved = {name for name, _ in (*LEADING_COLUMNS, *TRAILING_COLUMNS)}
    if clash := sorted(reserved.intersection(feature_names)) or _repeated(feature_names):
        raise InputError(f"feature names must be unique and none of {sorted(reserved)}; these are not: {clash}")
    whole = {**metadata, "schema_version": SCHEMA_VERSION, "feature_names": list(feature_names)}
    if missing := [key for key in REQUIRED_METADATA if not whole.get(key)]:
        raise InputError(f"the score table's metadata lacks {', '.join(missing)}")
    columns = (*LEADING_COLUMNS, *((name, PRECISIONS[precision]) for name in feature_names), *TRAILING_COLUMNS)
    fields = [pa.field(name, kind, nullable=name != "id") for name, kind in columns]
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(whole)})


def to_batch(
    table_schema: pa.Schema,
    *,
    ids: Sequence[str],
    labels: npt.ArrayLike,
    features: npt.ArrayLike,
    errors: Sequence[str | None] | None = None,
) -> pa.RecordBatch:
    """Return one batch of rows of a score table.

    Parameters
    ----------
    table_schema : pyarrow.Schema
        The schema, from `schema`.
    ids : sequence of str, [N]
        Names of the inputs.
    labels : int [N]
        Predicted classes.
    features : float [N, F]
        Features in the schema's order.
    errors : sequence of str or None, [N]
        Error message of each row, or None. The label and features of a row with an error are ignored.

    Raises
    ------
    InputError
        The lengths differ, or a label is outside the class names.
    """
    metadata = _metadata_of(table_schema, "the schema")
    count, names = len(ids), metadata["feature_names"]
    values = np.asarray(features, dtype=np.float64)
    classes = np.asarray(labels, dtype=np.int64)
    messages = list(errors) if errors is not None else [None] * count
    if values.shape != (count, len(names)) or classes.shape != (count,) or len(messages) != count:
        raise InputError(
            f"rows do not fit together: {count} ids, {len(messages)} errors, labels {classes.shape}, "
            f"features {values.shape}; the schema has {len(names)} features"
        )
    broken = np.array([message is not None for message in messages], dtype=np.bool_)
    there = arrow.validity(broken)
    columns = [
        arrow.strings(ids),
        arrow.numbers(classes, there),
        arrow.strings(_class_names(classes, broken, metadata.get("class_names"))),
        *arrow.columns(_stored(values, metadata), there),
        arrow.strings(messages),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=table_schema)


def _stored(values: FloatArray, metadata: Mapping[str, Any]) -> npt.NDArray[np.floating]:
    with np.errstate(over="ignore"):  # a value too large for float32 becomes infinity
        return values.astype(metadata.get("precision", "float64"), copy=False)


def _class_names(
    classes: npt.NDArray[np.int64], broken: npt.NDArray[np.bool_], names: Sequence[str] | None
) -> list[str | None]:
    if not names:
        return [None] * len(classes)
    outside = classes[~broken & ((classes < 0) | (classes >= len(names)))]
    if len(outside):
        raise InputError(f"predicted label {outside[0]} is outside the {len(names)} class names of the model")
    return [None if bad else names[index] for index, bad in zip(classes.tolist(), broken, strict=True)]


@dataclass(frozen=True)
class ScoreTable:
    """A checked score table with its metadata. The module's docstring lists the columns."""

    table: pa.Table
    metadata: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> "ScoreTable":
        """Read one Parquet file, or all `*.parquet` shards of a directory by name.

        Raises
        ------
        InputError
            The path does not exist, is not a score table of this schema version, lacks columns, or holds the shards of
            an unfinished run.
        MismatchError
            Different models wrote the shards.
        """
        place = Path(path)
        if place.is_dir():
            refuse_unfinished(place)
        shards = sorted(place.glob("*.parquet")) if place.is_dir() else [place]
        if not shards:
            raise InputError(f"no .parquet file in directory {place}; give the file or directory that `score` wrote")
        return cls.concatenate([cls._read_shard(shard) for shard in shards])

    @classmethod
    def _read_shard(cls, path: Path) -> "ScoreTable":
        if not path.is_file():
            raise InputError(f"no such score table: {path}; `gradscore score MODEL IMAGES -o {path}` writes one")
        try:
            with pq.ParquetFile(path) as file:
                _checked_schema(file.schema_arrow, str(path))
                return cls.of(file.read(), str(path))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as cause:
            reason = str(cause).splitlines()[0]
            raise InputError(f"{path} cannot be read as a Parquet file ({reason}); it may be truncated") from cause

    @classmethod
    def of(cls, table: pa.Table, where: str = "the table") -> "ScoreTable":
        """Check an Arrow table and wrap it. `where` names it in errors. Extra columns are kept.

        Raises
        ------
        InputError
            The table is not a score table of this schema version, or columns are missing or of another type.
        """
        return cls(table, _checked_schema(table.schema, where))

    @classmethod
    def concatenate(cls, tables: Sequence["ScoreTable"]) -> "ScoreTable":
        """Return the rows of several tables in order, as one table.

        Raises
        ------
        InputError
            No table is given.
        MismatchError
            The tables come from different models.
        """
        if not tables:
            raise InputError("no score tables given")
        first = tables[0]
        for other in tables[1:]:
            require_same_features(first.feature_names, other.feature_names, "the first table", "another table")
            require_same_model(first.model_fingerprint, other.model_fingerprint, "the first table", "another table")
            require_same_reference(
                first.reference_sha256, other.reference_sha256, "the first table", "another table"
            )  # fmt: skip
        columns = first.table.column_names
        joined = pa.concat_tables([part.table.select(columns).cast(first.table.schema) for part in tables])
        return cls(joined, first.metadata)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in the model's order."""
        return tuple(self.metadata["feature_names"])

    @property
    def extra_features(self) -> tuple[str, ...]:
        """Extra features requested with `--features` when the table was scored."""
        return tuple(self.metadata.get("extra_features", ()))

    @property
    def joined_features(self) -> tuple[str, ...]:
        """Features that were joined from a user's own files. They stand last. See `extra_columns`."""
        return tuple(self.metadata.get("joined_features", ()))

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the model's classes by index, or None if the table has none."""
        names = self.metadata.get("class_names")
        return tuple(names) if names else None

    @property
    def model_fingerprint(self) -> str:
        """SHA-256 of the scoring model that wrote the table."""
        return str(self.metadata["model_fingerprint"])

    @property
    def reference_sha256(self) -> str | None:
        """SHA-256 of the file of `--reference` that the table was scored with, or None."""
        return self.metadata.get("reference_sha256")

    def features(self, names: Sequence[str] | None = None) -> FloatArray:
        """Return all features, or those named, as float64 [N, F]. Rows with an error are NaN.

        Raises
        ------
        InputError
            The table has no feature of that name.
        """
        wanted = self.feature_names if names is None else tuple(names)
        if unknown := [name for name in wanted if name not in self.feature_names]:
            raise InputError(f"the table has no feature {unknown[0]!r}; it has: {_shortened(self.feature_names)}")
        out = np.empty((len(self), len(wanted)), dtype=np.float64)
        for index, name in enumerate(wanted):
            out[:, index] = self.table.column(name).to_numpy()
        return out

    def labels(self) -> npt.NDArray[np.int64]:
        """Return the predicted class of each row, int64 [N].

        It is −1 in rows with an error.
        """
        return np.asarray(self.table.column("label").fill_null(-1).to_numpy(), dtype=np.int64)

    def ids(self) -> list[str]:
        """Return the [N] names of the inputs."""
        return list(self.table.column("id").to_pylist())

    def errors(self) -> list[str | None]:
        """Return the error message of each row [N], or None for a row without an error."""
        return list(self.table.column("error").to_pylist())

    def valid(self) -> npt.NDArray[np.bool_]:
        """Return which rows have no error, bool [N].

        Their features may still hold NaN or Inf from the model.
        """
        return np.asarray(self.table.column("error").is_null().to_numpy(), dtype=np.bool_)


def require_same_features(ours: Sequence[str], theirs: Sequence[str], our_place: str, their_place: str) -> None:
    """Refuse feature names that differ, or stand in another order.

    Raises
    ------
    MismatchError
        The names differ. The message shows the first difference.
    """
    if tuple(ours) == tuple(theirs):
        return
    pairs = enumerate(zip(ours, theirs, strict=False))
    shorter = min(len(ours), len(theirs))
    at = next((index for index, (one, other) in pairs if one != other), shorter)
    one, other = (repr(names[at]) if at < len(names) else "nothing" for names in (ours, theirs))
    raise MismatchError(
        f"features differ: {our_place} has {len(ours)}, {their_place} has {len(theirs)}; the first difference is "
        f"feature {at + 1}: {one} against {other}. Score with the model that both belong to, or fit again"
    )


def require_same_model(ours: str, theirs: str, our_place: str, their_place: str) -> None:
    """Refuse fingerprints of different scoring models.

    Raises
    ------
    MismatchError
        The fingerprints differ. The message shows both, shortened.
    """
    if ours != theirs:
        raise MismatchError(
            f"scoring models differ: {our_place} belongs to {ours[:12]}…, {their_place} to {theirs[:12]}…. "
            "Score with the model that both belong to, or fit again"
        )


def _checked_schema(found: pa.Schema, where: str) -> dict[str, Any]:
    metadata = _metadata_of(found, where)
    expected = schema(metadata["feature_names"], metadata)
    if missing := [name for name in expected.names if name not in found.names]:
        raise InputError(f"{where} lacks the columns {_shortened(missing)} that its own metadata names")
    if repeated := _repeated(found.names):
        raise InputError(f"{where} has repeated columns: {_shortened(repeated)}. Keep one of each")
    for wanted in expected:
        kind = found.field(wanted.name).type
        if kind != wanted.type:
            raise InputError(f"column {wanted.name!r} of {where} is {kind}, but a score table has {wanted.type} there")
    return metadata


def _metadata_of(found: pa.Schema, where: str) -> dict[str, Any]:
    text = (found.metadata or {}).get(METADATA_KEY)
    if text is None:
        raise InputError(f"{where} is not a score table: it has no `gradscore` metadata. `gradscore score` writes one")
    try:
        metadata = json.loads(text)
    except ValueError as cause:
        raise InputError(f"the `gradscore` metadata of {where} is not JSON; score again") from cause
    if not isinstance(metadata, dict) or metadata.get("schema_version") != SCHEMA_VERSION:
        version = metadata.get("schema_version") if isinstance(metadata, dict) else None
        raise InputError(f"{where} has schema version {version}; this gradscore reads {SCHEMA_VERSION}: score again")
    names = metadata.get("feature_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"the `gradscore` metadata of {where} has no list `feature_names`; score again")
    return metadata


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []


def _shortened(names: Sequence[str], limit: int = 6) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, … ({len(names)} in all)"


def require_same_reference(ours: str | None, theirs: str | None, our_place: str, their_place: str) -> None:
    """Refuse SHA-256 of different references, with which detectors compared; None means none.

    Raises
    ------
    MismatchError
        They differ. The message shows both, shortened.
    """
    if ours != theirs:
        one, other = (f"{sha256[:12]}…" if sha256 else "none" for sha256 in (ours, theirs))
        raise MismatchError(
            f"references of detectors differ: {our_place} has {one}, {their_place} {other}. Score with the same --reference"
        )
