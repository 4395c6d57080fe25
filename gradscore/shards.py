"""Where a run's rows go: Parquet shards finished one by one, and at the end one file where one was asked for.

An output with a suffix of `formats.FORMATS` is one file: its shards lie in a hidden folder beside it and vanish when
they are joined. Any other output is the folder of shards itself. Whatever stops a run, its finished shards remain.
"""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from gradscore.digest import sha256_of_file
from gradscore.errors import GradscoreError, InputError, OutputExistsError
from gradscore.formats import FORMATS, Parquet
from gradscore.locking import LOCK, locked
from gradscore.manifest import MANIFEST, Manifest, Shard, refuse_changed
from gradscore.writing import refuse_existing, replacing

SHARD_ROWS = 16_384
_LONGEST = 30.0  # seconds after which a shard is finished however few rows it has: the most that a crash can cost
_JOINED = "joined"


@dataclass(frozen=True)
class Place:
    """An output and the folder where its shards lie."""

    target: Path

    @property
    def single(self) -> bool:
        """Whether the output is one file."""
        return self.target.suffix.lower() in FORMATS

    @property
    def folder(self) -> Path:
        """The folder of shards and manifest."""
        return self.target.with_name(f".{self.target.name}.parts") if self.single else self.target

    def refuse_taken(self, *, overwrite: bool, resume: bool) -> None:
        """Refuse an output that may not be written; called early, before the work whose result goes there.

        Raises
        ------
        OutputExistsError
            It exists, or a run that has not ended does, and neither `overwrite` nor `resume` is set.
        GradscoreError
            Its folder does not exist.
        """
        if overwrite and resume:
            raise InputError("--overwrite starts anew and --resume continues: choose one")
        if self.single:
            refuse_existing(self.target, overwrite=overwrite or resume)
        elif not self.target.is_dir():
            refuse_existing(self.target, overwrite=False)
        manifest = Manifest.read(self.folder) if not overwrite else None
        if manifest is not None and manifest.shards and not resume:
            raise OutputExistsError(_taken(self.target, manifest))
        if not self.single and manifest is None and _foreign(self.folder):
            raise OutputExistsError(f"{self.target} is a folder: name a file to write, or a new folder for shards")

    def kept(self) -> str:
        """Say what remains of a run that was stopped."""
        manifest = Manifest.read(self.folder)
        if manifest is None or not manifest.shards:
            return "no unfinished output is left"
        return f"{manifest.rows:,} of {manifest.total:,} inputs are done: run again with --resume"


class ShardedOutput:
    """An output while it is written: a context that holds its lock. Rows are added in order, `finish` makes it whole."""

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
        self._place = Place(target)
        self._place.refuse_taken(overwrite=overwrite, resume=resume)
        self._schema, self._shard_rows = schema, shard_rows
        self._overwrite, self._resume = overwrite, resume
        self._rows: list[pa.RecordBatch] = []
        self._facts = _Facts()
        self._since = time.monotonic()
        self._pending: Future[None] | None = None
        self._held = ExitStack()
        self.manifest = Manifest(identity)

    def __enter__(self) -> Self:
        """Take the lock, then what an earlier run has finished."""
        place, folder = self._place, self._place.folder
        try:
            folder.mkdir(exist_ok=True)
            self._held.enter_context(locked(folder, output=place.target))
        except OSError as error:
            raise GradscoreError(f"cannot write {place.target}: {error.strerror}") from error
        try:
            place.refuse_taken(overwrite=self._overwrite, resume=self._resume)  # again: another run may just have ended
            self._begin()
            self._writer = self._held.enter_context(ThreadPoolExecutor(1, thread_name_prefix="gradscore-write"))
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the shard being written, drop the lock, and leave no folder in which nothing was finished."""
        self._leave()

    @property
    def rows(self) -> int:
        """Number of rows that are finished."""
        return self.manifest.rows

    def add(self, rows: pa.RecordBatch, *, failed: int, not_finite: int, first_error: str | None) -> None:
        """Take the rows of one batch; they are written once they fill a shard.

        Raises
        ------
        GradscoreError
            Writing failed.
        """
        self._rows.append(rows)
        self._facts.add(rows.num_rows, failed, not_finite, first_error)
        if self._facts.rows >= self._shard_rows or time.monotonic() - self._since > _LONGEST:
            self._hand_over()

    def finish(self) -> None:
        """Write the last rows, mark the run complete, and join the shards where the output is one file.

        Raises
        ------
        GradscoreError
            Writing failed.
        """
        if self._rows:
            self._hand_over()
        self._settle()
        with self._reported():
            self.manifest = Manifest(self.manifest.identity, self.manifest.shards, complete=True)
            self.manifest.write(self._place.folder)
            if self._place.single:
                self._join()

    def _begin(self) -> None:
        folder, earlier = self._place.folder, None
        if self._resume:
            earlier = Manifest.read(folder) or _finished_file(self._place)
        if earlier is not None:
            refuse_changed(self.manifest.identity, earlier.identity, self._place.target)
            _refuse_damaged(folder, earlier)
            self.manifest = earlier
        with self._reported():
            _clear(folder, keep={shard.file for shard in self.manifest.shards})
            if not self.manifest.complete:
                self.manifest.write(folder)

    def _hand_over(self) -> None:
        """Give the rows to the writer; wait for the shard before, so that no more than two are ever held."""
        self._settle()
        self._pending = self._writer.submit(self._write, self._rows, self._facts)
        self._rows, self._facts, self._since = [], _Facts(), time.monotonic()

    def _settle(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._reported():
                pending.result()

    def _write(self, rows: list[pa.RecordBatch], facts: "_Facts") -> None:
        folder, name = self._place.folder, f"part-{len(self.manifest.shards):05d}.parquet"
        table = pa.Table.from_batches(rows, schema=self._schema).combine_chunks()
        with replacing(folder / name, overwrite=True) as part:
            Parquet().write(part, self._schema, [table])
        path = folder / name
        shard = Shard(
            name, facts.rows, facts.failed, facts.not_finite, path.stat().st_size, sha256_of_file(path), facts.first_error
        )
        manifest = self.manifest.with_shard(shard)
        manifest.write(folder)
        self.manifest = manifest

    def _join(self) -> None:
        folder, target = self._place.folder, self._place.target
        if not self.manifest.shards and target.exists():
            return  # continued after its end: it was whole already
        joined = folder / f"{_JOINED}{target.suffix}"
        FORMATS[target.suffix.lower()].write(joined, self._schema, self._tables())
        joined.replace(target)
        _clear(folder, keep=set())
        (folder / MANIFEST).unlink(missing_ok=True)

    def _tables(self) -> Iterator[pa.Table]:
        return (pq.read_table(self._place.folder / shard.file) for shard in self.manifest.shards)

    def _reported(self) -> "_Reported":
        return _Reported(self._place.target, self.manifest)

    def _leave(self) -> None:
        folder = self._place.folder
        self._held.close()  # the writer ends its shard, then the lock goes
        manifest = Manifest.read(folder)
        if manifest is None or (not manifest.shards and not manifest.complete):
            (folder / MANIFEST).unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()


@dataclass
class _Facts:
    """What is counted while a shard fills."""

    rows: int = 0
    failed: int = 0
    not_finite: int = 0
    first_error: str | None = None

    def add(self, rows: int, failed: int, not_finite: int, first_error: str | None) -> None:
        self.rows, self.failed, self.not_finite = self.rows + rows, self.failed + failed, self.not_finite + not_finite
        self.first_error = self.first_error or first_error


class _Reported:
    """A context in which a failure to write names the output and says what is kept."""

    def __init__(self, target: Path, manifest: Manifest) -> None:
        self._target, self._manifest = target, manifest

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        cause = error.__cause__ if isinstance(error, GradscoreError) else error
        if not isinstance(cause, OSError) or isinstance(cause, BrokenPipeError):
            return
        reason = os.strerror(cause.errno) if cause.errno else str(cause)
        kept = f"; {self._manifest.rows:,} rows are kept, continue with --resume" if self._manifest.shards else ""
        raise GradscoreError(f"cannot write {self._target}: {reason}{kept}") from cause


def _taken(target: Path, manifest: Manifest) -> str:
    if manifest.complete:
        return f"{target} exists: choose another output, or pass --overwrite"
    return (
        f"{target} holds {manifest.rows:,} of {manifest.total:,} rows of a run that did not end: "
        "continue it with --resume, or start anew with --overwrite"
    )


def _foreign(folder: Path) -> bool:
    """Whether a folder holds anything that no run of ours put there."""
    ours = (LOCK, MANIFEST)
    return folder.is_dir() and any(item.name not in ours and not item.name.endswith(".part") for item in folder.iterdir())


def _clear(folder: Path, *, keep: set[str]) -> None:
    """Remove shards that the manifest does not know, and what a killed run left half written."""
    for pattern in ("part-*.parquet", ".*.part", f"{_JOINED}.*"):
        for path in folder.glob(pattern):
            if path.name not in keep:
                path.unlink()


def _refuse_damaged(folder: Path, manifest: Manifest) -> None:
    for shard in manifest.shards:
        path = folder / shard.file
        if not path.is_file() or path.stat().st_size != shard.size:
            raise InputError(f"{path} is gone or was changed since its run: start anew with --overwrite")


def _finished_file(place: Place) -> Manifest | None:
    """Return what a joined file says of the run that wrote it; None where there is none."""
    if not place.single or not place.target.exists():
        return None
    return None


_ = shutil
