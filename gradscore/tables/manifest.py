"""Run manifests: the identity of a scoring run and its finished shards.

The manifest is the file `manifest.json` beside the shards. The identity holds everything that changes rows: the
model, its preprocessing and features, versions, kernel back end, providers, batch size, and a digest of the input
ids. A run with another identity cannot be resumed.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from gradscore.errors import InputError, MismatchError
from gradscore.files.writing import replacing

MANIFEST = "manifest.json"
MANIFEST_KEY = b"gradscore.manifest"  # metadata key of the run's manifest in a joined Parquet file
FORMAT_VERSION = 1
_AT_ONCE = 4096  # ids hashed in one update


@dataclass(frozen=True)
class Shard:
    """A finished file of consecutive rows."""

    file: str
    rows: int
    failed: int
    not_finite: int
    size: int
    sha256: str
    first_error: str | None = None


@dataclass(frozen=True)
class Manifest:
    """A run's identity and its finished shards, in order."""

    identity: Mapping[str, Any]
    shards: tuple[Shard, ...] = ()
    complete: bool = False

    @property
    def rows(self) -> int:
        """Number of finished rows. A resumed run starts after them."""
        return sum(shard.rows for shard in self.shards)

    @property
    def total(self) -> int:
        """Number of inputs of the run."""
        return int(self.identity["inputs"])

    def with_shard(self, shard: Shard) -> "Manifest":
        """Return the manifest with one more shard."""
        return replace(self, shards=(*self.shards, shard))

    def to_json(self) -> str:
        """Return the text of a manifest file."""
        return json.dumps({"format": FORMAT_VERSION, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str) -> "Manifest":
        """Parse the text that `to_json` returned. `where` names the file in errors.

        Raises
        ------
        InputError
            The text is damaged, or has another format version.
        """
        try:
            raw = json.loads(text)
            if raw["format"] != FORMAT_VERSION:
                raise InputError(
                    f"{where} has format {raw['format']}, but this gradscore reads {FORMAT_VERSION}: score again"
                )
            return cls(raw["identity"], tuple(Shard(**shard) for shard in raw["shards"]), raw["complete"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{where} is not the manifest of a scoring run ({error}): score again with --overwrite"
            ) from error

    def write(self, folder: Path) -> None:
        """Write the manifest by atomic rename."""
        with replacing(folder / MANIFEST, overwrite=True) as part:
            part.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """Read the manifest of a folder, or return None if it has none.

        Raises
        ------
        InputError
            The manifest is damaged, has another format version, or cannot be read.
        """
        path = folder / MANIFEST
        try:
            return cls.from_json(path.read_bytes(), where=str(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error


def listing_digest(ids: Iterable[str]) -> str:
    """Return a SHA-256 over ids in order.

    It changes when an input is removed, added, renamed or moved.
    """
    digest, remaining = hashlib.sha256(), iter(ids)
    while some := list(islice(remaining, _AT_ONCE)):
        digest.update("\0".join((*some, "")).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def refuse_changed(ours: Mapping[str, Any], theirs: Mapping[str, Any], output: Path) -> None:
    """Refuse to resume a run with another identity.

    Raises
    ------
    MismatchError
        The identities differ. The message names each difference.
    """
    keys = [key for key in dict.fromkeys((*theirs, *ours)) if theirs.get(key) != ours.get(key)]
    if keys:
        changes = "; ".join(f"{key} was {_short(theirs.get(key))}, is now {_short(ours.get(key))}" for key in keys)
        raise MismatchError(
            f"{output} was started by another run ({changes}): use that run's model, inputs and options with --resume, "
            "or start again with --overwrite"
        )


def refuse_unfinished(folder: Path) -> None:
    """Refuse to read the shards of an unfinished run: rows would be missing without notice.

    Raises
    ------
    InputError
        The manifest of the folder says that the run is not complete.
    """
    manifest = Manifest.read(folder)
    if manifest is not None and not manifest.complete:
        raise InputError(
            f"{folder} holds {manifest.rows:,} of {manifest.total:,} rows of an unfinished run: "
            "finish it with `gradscore score … --resume`"
        )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}…" if len(text) == 64 else text
