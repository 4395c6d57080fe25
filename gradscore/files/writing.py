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
        The folder is missing or cannot be written, or writing failed on the way (disk full, quota, file size limit).
    """
    target = Path(path)
    refuse_existing(target, overwrite=overwrite)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    except OSError as error:
        raise GradscoreError(f"cannot write into {target.parent}: {error.strerror}") from error
    os.close(handle)
    part = Path(name)
    try:
        part.chmod(0o666 & ~_umask())
        yield part
        part.replace(target)
    except BrokenPipeError:
        raise  # whoever read our progress has left; the file is not to blame
    except OSError as error:
        raise GradscoreError(f"cannot write {target}: {os.strerror(error.errno) if error.errno else error}") from error
    finally:
        part.unlink(missing_ok=True)


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuse a path that cannot become the output; called early, before the work whose result goes there.

    Raises
    ------
    OutputExistsError
        It is taken and `overwrite` is False, or it is a folder or a device, which is never replaced.
    GradscoreError
        Its folder does not exist.
    """
    if path.exists() and not path.is_file():
        raise OutputExistsError(f"{path} is {'a folder' if path.is_dir() else 'no regular file'}: name a file to write")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists: choose another output, or pass --overwrite")
    if not path.parent.is_dir():
        raise GradscoreError(f"cannot write {path}: there is no folder {path.parent}; make it first")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
