"""Output files: finished by atomic rename, never half there, never over something that was not meant to go."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradscore.errors import GradscoreError, OutputExistsError


@contextmanager
def replacing(path: str | os.PathLike[str], *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes its name when the block ends well and vanishes when it does not.

    Raises
    ------
    OutputExistsError
        `path` exists and `overwrite` is False.
    GradscoreError
        The folder is missing or cannot be written.
    """
    target = Path(path)
    refuse_existing(target, overwrite=overwrite)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    except OSError as error:
        raise GradscoreError(f"cannot write into {target.parent}: {error.strerror}") from error
    os.close(handle)
    part = Path(name)
    part.chmod(0o666 & ~_umask())
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise `OutputExistsError` where `path` is taken; called early, before the work whose result goes there."""
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists: choose another output, or pass --overwrite")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
