"""File formats of score tables, for a file or a stream."""

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
        """Start a file, or continue a stream."""


class Parquet:
    """Parquet, the only format that the later steps read. Each table becomes a row group."""

    def __init__(self, compression: str = "zstd") -> None:
        self._compression = compression

    def open(self, sink: Path | IO[bytes], schema: pa.Schema) -> TableWriter:
        """Start a file."""
        import pyarrow.parquet as pq  # noqa: PLC0415 - a stream to stdout needs no Parquet

        # Features hardly ever repeat, so a dictionary would only cost time.
        repeating = [field.name for field in schema if not pa.types.is_floating(field.type)]
        writer: TableWriter = pq.ParquetWriter(sink, schema, compression=self._compression, use_dictionary=repeating)
        return writer


class ArrowStream:
    """Arrow's IPC stream, metadata included. `pyarrow.ipc.open_stream` reads it."""

    def open(self, sink: Path | IO[bytes], schema: pa.Schema) -> TableWriter:
        """Start a stream."""
        writer: TableWriter = pa.ipc.new_stream(str(sink) if isinstance(sink, Path) else sink, schema)
        return writer


class Csv:
    """CSV with a header.

    Nulls are empty. Features have the shortest digits that read back as the same float64.
    """

    def open(self, sink: Path | IO[bytes], schema: pa.Schema) -> TableWriter:
        """Start a file with its header."""
        import pyarrow.csv  # noqa: PLC0415 - loaded only for CSV output

        writer: TableWriter = pyarrow.csv.CSVWriter(str(sink) if isinstance(sink, Path) else sink, schema)
        return writer


class JsonLines:
    """One JSON object per line. NaN and infinity become null, because JSON has neither."""

    def open(self, sink: Path | IO[bytes], schema: pa.Schema) -> TableWriter:
        """Start a file."""
        del schema  # each line names its own columns
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


TABLE_FORMATS: Mapping[str, Format] = {
    ".parquet": Parquet(),
    ".arrow": ArrowStream(),
    ".csv": Csv(),
    ".jsonl": JsonLines(),
}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
