"""Score tables in the formats that people use: each writes an Arrow schema's batches to one file or stream."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa


class Format(Protocol):
    """How a score table is written."""

    def write(self, sink: Path | IO[bytes], schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
        """Write the tables' rows in order, holding one table at a time."""


class Parquet:
    """The only format that the later steps read."""

    def __init__(self, compression: str = "zstd") -> None:
        self._compression = compression

    def write(self, sink: Path | IO[bytes], schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
        """Write one row group a table."""
        import pyarrow.parquet as pq  # noqa: PLC0415 - streams to stdout need none

        repeating = [
            field.name for field in schema if not pa.types.is_floating(field.type)
        ]  # a feature hardly ever does
        with pq.ParquetWriter(sink, schema, compression=self._compression, use_dictionary=repeating) as writer:
            for table in tables:
                writer.write_table(table)


class ArrowStream:
    """Arrow's IPC stream: what `pyarrow.ipc.open_stream` reads, metadata included."""

    def write(self, sink: Path | IO[bytes], schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
        """Write each table as it comes."""
        with pa.ipc.new_stream(str(sink) if isinstance(sink, Path) else sink, schema) as writer:
            for table in tables:
                writer.write_table(table)


class Csv:
    """A header, then one line a row; nulls are empty, features in the shortest digits that give the same float64."""

    def write(self, sink: Path | IO[bytes], schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
        """Write each table as it comes."""
        import pyarrow.csv  # noqa: PLC0415 - loaded only where asked for

        with pyarrow.csv.CSVWriter(str(sink) if isinstance(sink, Path) else sink, schema) as writer:
            for table in tables:
                writer.write_table(table)


class JsonLines:
    """One JSON object a line; NaN and infinity, which JSON does not know, are null."""

    def write(self, sink: Path | IO[bytes], schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
        """Write each table as it comes."""
        del schema  # every line names its columns
        if isinstance(sink, Path):
            with sink.open("wb") as stream:
                self._write(stream, tables)
        else:
            self._write(sink, tables)

    def _write(self, stream: IO[bytes], tables: Iterable[pa.Table]) -> None:
        for table in tables:
            for row in table.to_pylist():
                stream.write(json.dumps({name: _plain(value) for name, value in row.items()}).encode() + b"\n")


FORMATS: Mapping[str, Format] = {
    ".parquet": Parquet(),
    ".arrow": ArrowStream(),
    ".csv": Csv(),
    ".jsonl": JsonLines(),
}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
