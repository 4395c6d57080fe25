"""The one file that a run's shards become: written beside them, as they are finished."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from gradscore.tables.formats import Format

_GROUP_BYTES = 2 << 20  # of tables that are written together: many small row groups make a long footer


class JoinedFile:
    """Takes the shards' tables in order; a file of its format once `close` has returned, and worth nothing before."""

    def __init__(self, path: Path, kind: Format, schema: pa.Schema) -> None:
        self.path = path
        self._writer = kind.open(path, schema)
        self._held: list[pa.Table] = []
        self._closed = False

    def add(self, table: pa.Table) -> None:
        """Take a table; it is written once there are enough of them."""
        self._held.append(table)
        if sum(one.nbytes for one in self._held) >= _GROUP_BYTES:
            self._write()

    def close(self, metadata: Mapping[bytes, str]) -> None:
        """Write the rest, and metadata where the format keeps any that is known at the end only: Parquet."""
        if self._held:
            self._write()
        if hasattr(self._writer, "add_key_value_metadata"):
            self._writer.add_key_value_metadata({name.decode(): text for name, text in metadata.items()})
        self._closed = True
        self._writer.close()

    def abandon(self) -> None:
        """Leave nothing behind where it still lies."""
        if not self._closed:
            with suppress(OSError):  # a full disk may be why
                self._writer.close()
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        self._writer.write_table(pa.concat_tables(self._held))
        self._held = []
        pa.default_memory_pool().release_unused()
