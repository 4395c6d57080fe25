"""The output of a run while it is written, as Parquet shards.

If the output is one file, the shards are joined as they finish. However a run stops, its finished shards and their
manifest remain. A run of the same identity can resume from there.
"""

import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from gradscore.errors import GradscoreError, InputError, OutputExistsError
from gradscore.files.digest import sha256_of_file
from gradscore.files.locking import locked
from gradscore.files.writing import replacing
from gradscore.runs.destination import Destination
from gradscore.runs.joined_file import JoinedFile
from gradscore.tables.formats import TABLE_FORMATS, Parquet
from gradscore.tables.manifest import MANIFEST, MANIFEST_KEY, Manifest, Shard, refuse_changed

SHARD_ROWS = 2048  # rows held in memory before they are written
_LONGEST = 30.0  # seconds after which a shard is finished, however small, so that a crash loses no more work than that
_JOINED = "joined"


@dataclass(frozen=True)
class Tally:
    """Counts of a batch, or of the shard that it goes into."""

    rows: int = 0
    failed: int = 0
    not_finite: int = 0
    first_error: str | None = None

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.rows + other.rows,
            self.failed + other.failed,
            self.not_finite + other.not_finite,
            self.first_error or other.first_error,
        )


class ShardedOutput:
    """The output of a run.

    Inside its context, it holds the output's lock; `finish` completes the output.
    """

    def __init__(
        self,
        target: Path,
        schema: pa.Schema,
        identity: Mapping[str, Any],
        *,
        overwrite: bool = False,
        resume: bool = False,
        shard_rows: int = SHARD_ROWS,
    ) -> None:
        self.manifest = Manifest(identity)
        self._place = Destination(target)
        self._schema, self._shard_rows = schema, shard_rows
        self._format = Parquet("none" if self._place.single else "zstd")  # shards of one file are temporary
        self._overwrite, self._resume = overwrite, resume
        self._begun = False
        self._whole = False  # an earlier run had already finished the output as one file
        self._rows: list[pa.RecordBatch] = []
        self._tally = Tally()
        self._since = time.monotonic()
        self._pending: Future[None] | None = None
        self._joined: JoinedFile | None = None
        self._held = ExitStack()

    def __enter__(self) -> Self:
        """Take the lock, then the shards that an earlier run has finished."""
        self._place.refuse_taken(overwrite=self._overwrite, resume=self._resume)
        try:
            with self._reported():
                self._place.folder.mkdir(exist_ok=True)
                self._held.enter_context(locked(self._place.folder, output=self._place.target))
            self._held.callback(self._forget)  # called on exit while the lock is still held
            self._place.refuse_taken(
                overwrite=self._overwrite, resume=self._resume
            )  # another run may have ended since the first check
            self._begin()
            self._held.callback(self._abandon)
            self._writer = self._held.enter_context(ThreadPoolExecutor(1, thread_name_prefix="gradscore-write"))
            self._pending = self._writer.submit(self._rejoin)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the shard being written and release the lock.

        A folder without a finished shard is deleted.
        """
        self._leave()

    @property
    def rows(self) -> int:
        """Number of finished rows."""
        return self.manifest.rows

    def add(self, rows: pa.RecordBatch, tally: Tally) -> None:
        """Take the rows of one batch. They are written once they fill a shard.

        Raises
        ------
        GradscoreError
            Writing an earlier shard failed.
        """
        self._rows.append(rows)
        self._tally += tally
        if self._tally.rows >= self._shard_rows or time.monotonic() - self._since > _LONGEST:
            self._hand_over()

    def finish(self) -> None:
        """Write the last rows, mark the run complete, and rename a joined file to the output.

        Raises
        ------
        GradscoreError
            Writing failed.
        """
        if self._rows:
            self._hand_over()
        self._settle()
        if self._whole:
            return
        with self._reported():
            self.manifest = replace(self.manifest, complete=True)
            self.manifest.write(self._place.folder)
            if self._joined is not None:
                self._become(self._joined)

    def _begin(self) -> None:
        folder, target = self._place.folder, self._place.target
        earlier = self._place.earlier() if self._resume else None
        self._whole = earlier is not None and not (folder / MANIFEST).exists()
        if earlier is not None:
            refuse_changed(self.manifest.identity, earlier.identity, target)
            self.manifest = earlier
        if self._whole:
            return
        _refuse_damaged(folder, self.manifest)
        self._begun = True
        with self._reported():
            _clear(folder, keep={shard.file for shard in self.manifest.shards})
            self.manifest.write(folder)
            if self._place.single:
                self._joined = JoinedFile(folder / _JOINED, TABLE_FORMATS[target.suffix.lower()], self._schema)

    def _hand_over(self) -> None:
        """Give the rows to the writer.

        First wait for the previous shard, so that memory holds two at most.
        """
        self._settle()
        self._pending = self._writer.submit(self._write, self._rows, self._tally)
        self._rows, self._tally, self._since = [], Tally(), time.monotonic()

    def _settle(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._reported():
                pending.result()

    def _write(self, rows: list[pa.RecordBatch], tally: Tally) -> None:
        folder, name = self._place.folder, f"part-{len(self.manifest.shards):05d}.parquet"
        table = pa.Table.from_batches(rows, schema=self._schema).combine_chunks()
        with replacing(folder / name, overwrite=True) as part, closing(self._format.open(part, self._schema)) as shard:
            shard.write_table(table)
        size, digest = (folder / name).stat().st_size, sha256_of_file(folder / name)
        finished = Shard(name, tally.rows, tally.failed, tally.not_finite, size, digest, tally.first_error)
        manifest = self.manifest.with_shard(finished)
        manifest.write(folder)
        self.manifest = manifest
        if self._joined is not None:
            self._joined.add(table)

    def _rejoin(self) -> None:
        """Copy the shards that an earlier run has finished into the joined file."""
        if self._joined is not None:
            for shard in self.manifest.shards:
                self._joined.add(_read(self._place.folder / shard.file))

    def _become(self, joined: JoinedFile) -> None:
        """Rename the joined file to the output and delete the shards."""
        folder, target = self._place.folder, self._place.target
        joined.close({MANIFEST_KEY: self.manifest.to_json()})
        joined.path.replace(target)
        (folder / MANIFEST).unlink()  # first: without a manifest, leftover shards are never resumed from
        _clear(folder, keep=set())

    def _abandon(self) -> None:
        if self._joined is not None:
            self._joined.abandon()

    def _forget(self) -> None:
        if self._begun and (self._whole or not self.manifest.shards):
            (self._place.folder / MANIFEST).unlink(missing_ok=True)
            _clear(self._place.folder, keep=set())  # also the files being written when the run was stopped

    def _leave(self) -> None:
        self._held.close()  # the writer finishes its shard, then the lock is released
        with suppress(OSError):  # the folder still holds shards, or another run's lock
            self._place.folder.rmdir()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Turn a failure to write into an error that names the output and the rows kept."""
        try:
            yield
        except (OSError, GradscoreError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if (
                not isinstance(cause, OSError)
                or isinstance(cause, BrokenPipeError)
                or isinstance(error, OutputExistsError)
            ):
                raise
            reason = os.strerror(cause.errno) if cause.errno else str(cause)
            kept = f"; {self.rows:,} rows are kept, continue with --resume" if self.rows else ""
            raise GradscoreError(f"cannot write {self._place.target}: {reason}{kept}") from cause


def _read(shard: Path) -> pa.Table:
    with pq.ParquetFile(shard) as file:  # `read_table` would load Arrow's query engine, 40 MB
        return file.read(use_threads=False)


def _clear(folder: Path, *, keep: set[str]) -> None:
    """Delete files not in `keep`: unlisted shards, and half-written files of a killed run."""
    for pattern in ("part-*.parquet", ".*.part", _JOINED):
        for path in folder.glob(pattern):
            if path.name not in keep:
                path.unlink()


def _refuse_damaged(folder: Path, manifest: Manifest) -> None:
    for shard in manifest.shards:
        path = folder / shard.file
        if not path.is_file() or path.stat().st_size != shard.size:
            raise InputError(f"{path} is missing or was changed after its run: start again with --overwrite")
