"""The single output file of a run, which grows as each shard is finished."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from gradscore.tables.formats import Format

_GROUP_BYTES = 2 << 20  # tables are collected to this size: many small row groups would make the footer long


class JoinedFile:
    """Takes the shards' tables in order. The file is valid only after `close` has returned."""

    def __init__(self, path: Path, kind: Format, schema: pa.Schema) -> None:
        self.path = path
        self._writer = kind.open(path, schema)
        self._held: list[pa.Table] = []
        self._closed = False

    def add(self, table: pa.Table) -> None:
        """Take a table. It is written once enough tables are held."""
        self._held.append(table)
        if sum(one.nbytes for one in self._held) >= _GROUP_BYTES:
            self._write()

    def close(self, metadata: Mapping[bytes, str]) -> None:
        """Write the remaining tables and close the file.

        Only Parquet can still store metadata at this point.
        """
        if self._held:
            self._write()
        if hasattr(self._writer, "add_key_value_metadata"):
            self._writer.add_key_value_metadata({name.decode(): text for name, text in metadata.items()})
        self._closed = True
        self._writer.close()

    def abandon(self) -> None:
        """Delete the unfinished file."""
        if not self._closed:
            with suppress(OSError):  # closing writes, and the disk may be full
                self._writer.close()
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        self._writer.write_table(pa.concat_tables(self._held))
        self._held = []
        pa.default_memory_pool().release_unused()
