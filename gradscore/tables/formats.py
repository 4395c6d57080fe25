"""Score tables in the formats that people use: each writes tables of an Arrow schema to one file or stream."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa


class TableWriter(Protocol):
    """Takes tables of one schema, in order."""

    def write_table(self, table: pa.Table) -> None:
        """Write the table's rows."""

    def close(self) -> None:
        """Write what ends the file."""


class Format(Protocol):
    """How a score table is written."""

    def open(self, sink: Path | IO[bytes], schema: pa.Schema) -> TableWriter:
        """Begin a file, or go on in a stream."""


class Parquet:
    """The only format that the later steps read; each table is a row group."""

    def __init__(self, compression: str = "zstd") -> None:
        self._compression = compression

    def open(self, sink: Path | IO[bytes], schema: pa.Schema) -> TableWriter:
        """Begin a file."""
        import pyarrow.parquet as pq  # noqa: PLC0415 - streams to stdout need none

        repeating = [
            field.name for field in schema if not pa.types.is_floating(field.type)
        ]  # a feature hardly ever does
        writer: TableWriter = pq.ParquetWriter(sink, schema, compression=self._compression, use_dictionary=repeating)
        return writer


class ArrowStream:
    """Arrow's IPC stream: what `pyarrow.ipc.open_stream` reads, metadata included."""

    def open(self, sink: Path | IO[bytes], schema: pa.Schema) -> TableWriter:
        """Begin a stream."""
        writer: TableWriter = pa.ipc.new_stream(str(sink) if isinstance(sink, Path) else sink, schema)
        return writer


class Csv:
    """A header, then one line a row; nulls are empty, features in the shortest digits that give the same float64."""

    def open(self, sink: Path | IO[bytes], schema: pa.Schema) -> TableWriter:
        """Begin a file with its header."""
        import pyarrow.csv  # noqa: PLC0415 - loaded only where asked for

        writer: TableWriter = pyarrow.csv.CSVWriter(str(sink) if isinstance(sink, Path) else sink, schema)
        return writer


class JsonLines:
    """One JSON object a line; NaN and infinity, which JSON does not know, are null."""

    def open(self, sink: Path | IO[bytes], schema: pa.Schema) -> TableWriter:
        """Begin a file."""
        del schema  # every line names its columns
        return _JsonLinesWriter(sink)


class _JsonLinesWriter:
    def __init__(self, sink: Path | IO[bytes]) -> None:
        self._own = isinstance(sink, Path)
        self._stream = sink.open("wb") if isinstance(sink, Path) else sink

    def write_table(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            self._stream.write(json.dumps({name: _plain(value) for name, value in row.items()}).encode() + b"\n")

    def close(self) -> None:
        if self._own:
            self._stream.close()


FORMATS: Mapping[str, Format] = {
    ".parquet": Parquet(),
    ".arrow": ArrowStream(),
    ".csv": Csv(),
    ".jsonl": JsonLines(),
}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
