"""A user's own scores as further columns of score tables, joined by id.

The files have a column `id` and numeric columns. Each column becomes a feature of that name, after the scored features.
Several files may hold the same column, each for some of the ids. So the rows of one table may come from several files, and
those of several tables from one. Ids are unique within a table only, so a file can be given for one table alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gradscore.errors import InputError, MismatchError
from gradscore.tables import arrow
from gradscore.tables.extra_files import ExtraFile
from gradscore.tables.table import METADATA_KEY, ScoreTable, require_same_features

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ExtraColumns:
    """The columns of all files given, to be joined to score tables.

    Attributes
    ----------
    files : tuple of ExtraFile
        The files, in the order given.
    signs : mapping of str to int
        The columns in the order given. 1: a larger value means more confident, −1: less.
    """

    files: tuple[ExtraFile, ...]
    signs: Mapping[str, int]

    @classmethod
    def read(cls, texts: Sequence[str]) -> "ExtraColumns":
        """Read files from PATH, or PATH:A,-B for some columns. In `-B`, smaller means more confident.

        NAME=PATH gives a file for the table NAME alone.

        Raises
        ------
        InputError
            A file cannot be read, lacks a column, has an id twice or a value missing, or a column has two signs.
        """
        parsed = [_parsed(text) for text in texts]
        signs: dict[str, int] = {}
        files = []
        for table, path, wanted in parsed:
            files.append(ExtraFile.read(path, wanted, table))
            for name in files[-1].columns:
                sign = (wanted or {}).get(name, 1)
                if signs.setdefault(name, sign) != sign:
                    raise InputError(f"--extra gives column {name!r} once with - and once without: give it one sign")
        return cls(tuple(files), signs)

    def join(self, table: ScoreTable, name: str) -> ScoreTable:
        """Return the table with all columns as further features. `name` is the table's name.

        Rows with an error need no values: their features are null.

        Raises
        ------
        InputError
            A row without an error has no value, or several; a row of a file fits this table and an earlier one; or a column
            has the name of one in the table.
        """
        if not self.files:
            return table
        if clash := [column for column in self.signs if column in table.table.column_names]:
            raise InputError(f"table {name} already has a column {clash[0]!r}: rename the one that --extra joins")
        places = [file.places(table.table.column("id"), name) for file in self.files]
        return _with_features(table, {column: self._values(column, places, table, name) for column in self.signs})

    def require_tables(self, names: Sequence[str]) -> None:
        """Refuse a file that was given for a table of another name.

        Raises
        ------
        InputError
            There is such a file.
        """
        for file in self.files:
            if file.table is not None and file.table not in names:
                raise InputError(
                    f"--extra {file.table}={file.path}: no table is named so; tables are {', '.join(names)}"
                )

    def unused(self) -> list[str]:
        """Return a line for each file with ids that no table had."""
        counts = [(file, int((~file.used).sum())) for file in self.files]
        return [
            f"{file.path}: {count:,} of {len(file.ids):,} ids are in no score table" for file, count in counts if count
        ]

    def _values(self, column: str, places: Sequence[npt.NDArray[np.int64]], table: ScoreTable, name: str) -> FloatArray:
        needed = table.valid()
        values, count = np.full(len(needed), np.nan), np.zeros(len(needed), dtype=np.int64)
        holding = [(file, place) for file, place in zip(self.files, places, strict=True) if column in file.columns]
        for file, place in holding:
            found = place >= 0
            values[found] = file.columns[column][place[found]]
            count += found
        paths = ", ".join(str(file.path) for file, _ in holding)
        if len(twice := np.flatnonzero(needed & (count > 1))):
            raise InputError(
                f"{len(twice):,} rows of table {name} are ambiguous: several --extra files have {column!r} of the same id, such "
                f"as {_id(table, twice)!r} ({paths}). Give each file for its table: --extra {name}=PATH"
            )
        if len(missing := np.flatnonzero(needed & (count == 0))):
            raise InputError(
                f"{len(missing):,} of {len(table):,} rows of table {name} have no {column!r} in {paths} (--extra), such as "
                f"{_id(table, missing)!r}. Ids must be written as in the score table: {holding[0][0].first_id!r} is the "
                "first in the file"
            )
        return values


def columns_read(names: Sequence[str], table: ScoreTable, reader: str) -> list[int]:
    """Return the columns of the table's features that a reader of features `names` takes.

    Joined columns may be unread, or in another order. The scored features must be the same. `reader` is what errors call it.

    Raises
    ------
    MismatchError
        The table lacks a feature, or has other scored features.
    """
    place = {name: index for index, name in enumerate(table.feature_names)}
    joined = set(table.joined_features)
    scored = [name for name in table.feature_names if name not in joined]
    lacking = [name for name in names if name not in place]
    if lacking and [name for name in names if name not in {*joined, *lacking}] == scored:
        raise MismatchError(
            f"{reader} also reads {', '.join(lacking[:3])}{', …' if len(lacking) > 3 else ''}, which the table lacks: "
            "join your own scores with --extra, or score with the same --features"
        )
    require_same_features([name for name in names if name not in joined], scored, reader, "the table")
    return [place[name] for name in names]


def narrowed(names: Sequence[str], table: ScoreTable, reader: str) -> ScoreTable:
    """Return the table with the features `names` in this order, less joined columns. See `columns_read`."""
    columns_read(names, table, reader)
    unread = sorted(set(table.feature_names).difference(names))
    joined = [name for name in table.joined_features if name in names]
    metadata = {**table.metadata, "feature_names": list(names), "joined_features": joined}
    return ScoreTable(table.table.drop_columns(unread) if unread else table.table, metadata)


def _parsed(text: str) -> tuple[str | None, Path, dict[str, int] | None]:
    """Return table, path and the signs of the columns in [TABLE=]PATH[:COLUMNS]."""
    path, signs = _path_and_columns(text)
    table, _, rest = text.partition("=")
    if path.exists() or not rest:
        return None, path, signs
    return table, *_path_and_columns(rest)


def _path_and_columns(text: str) -> tuple[Path, dict[str, int] | None]:
    path, _, names = text.rpartition(":")
    if not path or Path(text).exists() or not Path(path).is_file():
        return Path(text), None
    columns = [name.strip() for name in names.split(",")]
    return Path(path), {name.removeprefix("-"): -1 if name.startswith("-") else 1 for name in columns}


def _with_features(table: ScoreTable, values: Mapping[str, FloatArray]) -> ScoreTable:
    kind = table.metadata.get("precision", "float64")
    there, wide = arrow.validity(~table.valid()), table.table
    for name, column in values.items():
        wide = wide.add_column(wide.column_names.index("error"), name, arrow.numbers(column.astype(kind), there))
    metadata = {
        **table.metadata,
        "feature_names": [*table.feature_names, *values],
        "joined_features": [*table.joined_features, *values],
    }
    whole = {**(wide.schema.metadata or {}), METADATA_KEY: json.dumps(metadata)}
    return ScoreTable.of(wide.replace_schema_metadata(whole))


def _id(table: ScoreTable, rows: npt.NDArray[np.intp]) -> str:
    return str(table.table.column("id")[int(rows[0])])
