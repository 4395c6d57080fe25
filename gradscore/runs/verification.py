"""Verification of a score table: every input once, in order, every shard unchanged."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gradscore.errors import InputError
from gradscore.files.digest import sha256_of_file
from gradscore.inputs.sources import Source
from gradscore.runs.destination import Destination, manifest_of_file
from gradscore.tables.manifest import Manifest, listing_digest

_SHOWN = 3


@dataclass(frozen=True)
class Verification:
    """The result of a verification. The table is whole if there are no problems."""

    rows: int
    failed: int
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain values for JSON."""
        return {**asdict(self), "whole": not self.problems}


def verify_output(path: Path, source: Source | None = None) -> Verification:
    """Compare a run's output with its manifest, and with a source if given.

    The output is a Parquet file or a folder of shards.

    Raises
    ------
    InputError
        The path does not exist, or the folder has no manifest.
    OutputExistsError
        The file holds no manifest.
    """
    manifest = _manifest(path)
    ids: list[str] = []
    problems: list[str] = []
    failed = 0
    for file in [path / shard.file for shard in manifest.shards] if path.is_dir() else [path]:
        try:
            table = pq.read_table(file, columns=["id", "error"])
        except (pa.ArrowInvalid, OSError) as error:
            problems.append(f"{file} cannot be read: {str(error).splitlines()[0]}")
            continue
        ids += table.column("id").to_pylist()
        failed += len(table) - table.column("error").null_count
    if path.is_dir():
        problems += _changed_shards(path, manifest)
    if not manifest.complete:
        problems.append(
            f"the run did not end: {manifest.rows:,} of {manifest.total:,} inputs are done (--resume continues)"
        )
    elif (len(ids), listing_digest(ids)) != (manifest.total, manifest.identity["listing"]):
        problems.append(
            f"the {len(ids):,} rows are not the {manifest.total:,} inputs of the run, each once and in order"
        )
    if source is not None:
        problems += _differences(ids, list(source.ids()))
    return Verification(len(ids), failed, tuple(problems))


def _manifest(path: Path) -> Manifest:
    manifest = Manifest.read(path) if path.is_dir() else Manifest.read(Destination(path).folder)
    if manifest is None and not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if manifest is None and path.is_dir():
        raise InputError(f"{path} has no manifest: it was not written by `gradscore score`")
    return manifest or manifest_of_file(path)


def _changed_shards(folder: Path, manifest: Manifest) -> Iterator[str]:
    for shard in manifest.shards:
        file = folder / shard.file
        if file.is_file() and sha256_of_file(file) != shard.sha256:
            yield f"{file} was changed after its run"
    listed = {shard.file for shard in manifest.shards}
    yield from (f"{file} belongs to no run" for file in sorted(folder.glob("*.parquet")) if file.name not in listed)


def _differences(found: list[str], wanted: list[str]) -> Iterator[str]:
    for what, names in (
        ("inputs have no row", sorted(set(wanted) - set(found))),
        ("rows belong to no input", sorted(set(found) - set(wanted))),
    ):
        if names:
            yield f"{len(names):,} {what}: {', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}"
    if len(found) != len(set(found)):
        yield f"{len(found) - len(set(found)):,} rows are repeated"
