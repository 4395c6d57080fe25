"""Where a run's rows go: one file, or a folder of shards; and whether that place is free."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gradscore.errors import InputError, OutputExistsError
from gradscore.files.locking import LOCK
from gradscore.files.writing import refuse_existing
from gradscore.tables.formats import FORMATS
from gradscore.tables.manifest import MANIFEST, MANIFEST_KEY, Manifest


@dataclass(frozen=True)
class Destination:
    """An output, and the folder where its shards lie.

    An output with a suffix of `formats.FORMATS` is one file: its shards lie in a hidden folder beside it and go when
    they are joined. Any other output is the folder of shards itself.
    """

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
            It exists, or a run that did not end left its shards, and neither `overwrite` nor `resume` is set.
        GradscoreError
            Its folder does not exist.
        """
        if overwrite and resume:
            raise InputError("--overwrite starts anew and --resume continues: choose one")
        if self.single or not self.target.is_dir():
            refuse_existing(self.target, overwrite=self.single and (overwrite or resume))
        if not self.single and not (self.folder / MANIFEST).exists() and _in_use(self.folder):
            raise OutputExistsError(f"{self.target} is a folder: name a file to write, or a new folder for shards")
        manifest = None if overwrite or resume else Manifest.read(self.folder)
        if manifest is not None and manifest.shards:
            raise OutputExistsError(self._taken(manifest))

    def earlier(self) -> Manifest | None:
        """Return what an earlier run to this output says of itself, whether it ended or not; None where there is none.

        Raises
        ------
        OutputExistsError
            The output is a file that does not say which run wrote it.
        """
        unfinished = Manifest.read(self.folder)
        if unfinished is not None or not self.single or not self.target.exists():
            return unfinished
        return manifest_of_file(self.target)

    def kept(self) -> str:
        """Say what remains of a run that was stopped."""
        manifest = Manifest.read(self.folder)
        if manifest is None or not manifest.shards:
            return "no unfinished output is left"
        return f"{manifest.rows:,} of {manifest.total:,} inputs are done: run again with --resume"

    def _taken(self, manifest: Manifest) -> str:
        if manifest.complete and not self.single:
            return f"{self.target} exists: choose another output, or pass --overwrite"
        return (
            f"{self.target} holds {manifest.rows:,} of {manifest.total:,} rows of a run that did not end: "
            "continue it with --resume, or start anew with --overwrite"
        )


def manifest_of_file(path: Path) -> Manifest:
    """Return the manifest that a joined Parquet file carries.

    Raises
    ------
    OutputExistsError
        The file is of another format, or was not written by a scoring run of this version.
    """
    try:
        text = (pq.read_metadata(path).metadata or {}).get(MANIFEST_KEY) if path.suffix.lower() == ".parquet" else None
    except (pa.ArrowInvalid, OSError):
        text = None
    if text is None:
        raise OutputExistsError(
            f"{path} exists and does not say which run wrote it: choose another output, or pass --overwrite"
        )
    return Manifest.from_json(text, where=str(path))


def _in_use(folder: Path) -> bool:
    return folder.is_dir() and any(item.name != LOCK and not item.name.endswith(".part") for item in folder.iterdir())
