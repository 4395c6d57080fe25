"""Files with a user's own scores: Parquet or CSV, with a column `id` and numeric columns."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gradscore.errors import InputError

ID = "id"


@dataclass(frozen=True)
class ExtraFile:
    """The content of one file.

    Attributes
    ----------
    path : Path
        The file.
    ids : pyarrow.Array, [N]
        Its ids, each once.
    columns : mapping of str to float64 [N]
        Its columns.
    used : bool [N]
        Whether a score table had the id. `places` fills it in.
    table : str or None
        The one table that the file is for, or None for any.
    """

    path: Path
    ids: Any
    columns: Mapping[str, npt.NDArray[np.float64]]
    used: npt.NDArray[np.bool_]
    table: str | None = None

    @classmethod
    def read(cls, path: Path, wanted: Collection[str] | None, table: str | None = None) -> "ExtraFile":
        """Read all columns of a file, or those wanted. `table` is the one table that it is for.

        Raises
        ------
        InputError
            The file cannot be read, lacks a column, has one that is not numeric, or has an id twice or a value missing.
        """
        content = _content(path)
        names = [name for name in content.column_names if name != ID]
        if lacking := [name for name in (ID, *(wanted or ())) if name not in content.column_names]:
            raise InputError(
                f"{path} has no column {lacking[0]!r} (--extra); it has: {', '.join(content.column_names[:6])}"
            )
        chosen = names if wanted is None else list(wanted)
        if repeated := [name for name in chosen if content.column_names.count(name) > 1]:
            raise InputError(f"{path} has several columns {repeated[0]!r} (--extra): keep one of them")
        if not chosen:
            raise InputError(f"{path} has no column beside id (--extra): there is nothing to join")
        ids = pc.cast(content.column(ID), pa.string()).combine_chunks()
        _require_unique(ids, path)
        columns = {name: _numbers(content.column(name), ids, name, path) for name in chosen}
        return cls(path, ids, MappingProxyType(columns), np.zeros(len(ids), dtype=np.bool_), table)

    @property
    def first_id(self) -> str | None:
        """The first id, for errors, or None in an empty file."""
        return self.ids[0].as_py() if len(self.ids) else None

    def places(self, ids: pa.ChunkedArray, table: str) -> npt.NDArray[np.int64]:
        """Return the row of each id of a table, int64 [M], −1 where the file lacks it. Mark the rows as used.

        Raises
        ------
        InputError
            An earlier table has one of the ids, too.
        """
        if self.table not in (None, table):
            return np.full(len(ids), -1, dtype=np.int64)
        rows = np.asarray(pc.index_in(ids, value_set=self.ids).fill_null(-1).to_numpy(), dtype=np.int64)
        found = rows[rows >= 0]
        if len(again := found[self.used[found]]) and self.table is None:
            raise InputError(
                f"{len(again):,} ids of {self.path} are in several tables, such as {self.ids[int(again[0])].as_py()!r} in "
                f"{table}: say which table the file is for, as in --extra {table}={self.path}"
            )
        self.used[found] = True
        return rows


def _content(path: Path) -> pa.Table:
    if not path.is_file():
        raise InputError(f"no such file: {path} (--extra takes a Parquet or CSV file, or PATH:COLUMNS)")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} must end in {' or '.join(READERS)} (--extra)")
    try:
        return reader(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as cause:
        raise InputError(f"{path} cannot be read (--extra): {str(cause).splitlines()[0]}") from cause


def _parquet(path: Path) -> pa.Table:
    import pyarrow.parquet as pq  # noqa: PLC0415 - a CSV file needs no Parquet

    with pq.ParquetFile(path) as file:
        return file.read()


def _csv(path: Path) -> pa.Table:
    from pyarrow import csv  # noqa: PLC0415 - a Parquet file needs no CSV

    # An id such as 007 is text.
    return csv.read_csv(path, convert_options=csv.ConvertOptions(column_types={ID: pa.string()}))


READERS = MappingProxyType({".parquet": _parquet, ".csv": _csv})


def _require_unique(ids: Any, path: Path) -> None:
    if ids.null_count:
        raise InputError(f"{path} has {ids.null_count:,} rows without an id (--extra)")
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        raise InputError(
            f"{path} has {len(repeated):,} ids more than once (--extra), such as {repeated[0]['values'].as_py()!r}"
        )


def _numbers(column: Any, ids: Any, name: str, path: Path) -> npt.NDArray[np.float64]:
    kind, types = column.type, pa.types
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind)):
        raise InputError(
            f"column {name!r} of {path} is {kind}, not numeric: name the columns to join, as in --extra {path}:A,B"
        )
    if column.null_count:
        row = column.combine_chunks().is_null().index(True).as_py()
        raise InputError(
            f"column {name!r} of {path} has no value for {column.null_count:,} ids (--extra), such as {ids[row].as_py()!r}"
        )
    return np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy(), dtype=np.float64)
