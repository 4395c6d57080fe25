"""The destination of a run, one file or a folder of shards, and its checks."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gradscore.errors import InputError, OutputExistsError
from gradscore.files.locking import LOCK
from gradscore.files.writing import refuse_existing
from gradscore.tables.formats import TABLE_FORMATS
from gradscore.tables.manifest import MANIFEST, MANIFEST_KEY, Manifest


@dataclass(frozen=True)
class Destination:
    """An output, and the folder that holds its shards.

    An output with a suffix in `formats.TABLE_FORMATS` is one file. Its shards are in a hidden folder beside it, and are
    deleted once they are joined. Any other output is itself the folder of shards.
    """

    target: Path

    @property
    def single(self) -> bool:
        """Whether the output is one file."""
        return self.target.suffix.lower() in TABLE_FORMATS

    @property
    def folder(self) -> Path:
        """The folder of shards and manifest."""
        return self.target.with_name(f".{self.target.name}.parts") if self.single else self.target

    def refuse_taken(self, *, overwrite: bool, resume: bool) -> None:
        """Refuse an output that may not be written. Call this before the work starts.

        Raises
        ------
        OutputExistsError
            The output or an unfinished run exists, and neither `overwrite` nor `resume` is set; or it is a folder of
            other files.
        InputError
            Both `overwrite` and `resume` are set.
        GradscoreError
            The folder of the output does not exist.
        """
        if overwrite and resume:
            raise InputError("--overwrite starts again and --resume continues: choose one")
        if self.single or not self.target.is_dir():
            refuse_existing(self.target, overwrite=self.single and (overwrite or resume))
        if not self.single and not (self.folder / MANIFEST).exists() and _in_use(self.folder):
            raise OutputExistsError(f"{self.target} is a folder: name a file to write, or a new folder for shards")
        manifest = None if overwrite or resume else Manifest.read(self.folder)
        if manifest is not None and manifest.shards:
            raise OutputExistsError(self._taken(manifest))

    def earlier(self) -> Manifest | None:
        """Return the manifest of an earlier run to this output, finished or not, or None.

        Raises
        ------
        OutputExistsError
            The output is a file without a manifest.
        """
        unfinished = Manifest.read(self.folder)
        if unfinished is not None or not self.single or not self.target.exists():
            return unfinished
        return manifest_of_file(self.target)

    def kept(self) -> str:
        """Return a sentence that says what is left of a stopped run."""
        manifest = Manifest.read(self.folder)
        if manifest is None or not manifest.shards:
            return "no unfinished output is left"
        return f"{manifest.rows:,} of {manifest.total:,} inputs are done: run again with --resume"

    def _taken(self, manifest: Manifest) -> str:
        if manifest.complete and not self.single:
            return f"{self.target} exists: choose another output, or pass --overwrite"
        return (
            f"{self.target} holds {manifest.rows:,} of {manifest.total:,} rows of a run that did not end: "
            "continue it with --resume, or start again with --overwrite"
        )


def manifest_of_file(path: Path) -> Manifest:
    """Return the manifest stored in a joined Parquet file.

    Raises
    ------
    OutputExistsError
        The file has another format, or holds no manifest.
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
