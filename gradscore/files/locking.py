"""One run on one output: a lock that the operating system drops with its process, however that ends."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from gradscore.errors import OutputExistsError

LOCK = ".lock"
_PATIENCE = 0.2  # seconds in which a lock file that is just going has gone


@contextmanager
def locked(folder: Path, *, output: Path) -> Iterator[None]:
    """Hold the lock of a folder while the block runs; `output` names it in errors. A killed run leaves no lock behind.

    Where the file system has no locks, the lock is a file that names its process. A killed run leaves that file behind;
    the next run on the same machine takes it over.

    Raises
    ------
    OutputExistsError
        Another process holds it.
    OSError
        The folder cannot be written.
    """
    path, native = folder / LOCK, _has_locks(folder)
    lock = (FileLock if native else SoftFileLock)(path, timeout=_PATIENCE, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise OutputExistsError(_taken(path, output, native=native)) from error
    try:
        if native and sys.platform != "win32":  # Windows lets nobody write to a locked file
            path.write_text(f"{os.getpid()}\n")
        yield
    finally:
        if native and sys.platform != "win32":
            path.unlink(missing_ok=True)  # still held: whoever waits for this file finds it unlinked, and makes another
        lock.release()
        if sys.platform == "win32":
            with suppress(OSError):  # Windows deletes no file that another run has opened
                path.unlink()


def _has_locks(folder: Path) -> bool:
    """Tell whether `flock` works in a folder: Lustre may lack it, as NFS does without its lock service."""
    if sys.platform == "win32":
        return True
    import fcntl  # noqa: PLC0415 - not there on Windows

    with tempfile.TemporaryFile(dir=folder, prefix=f"{LOCK}.", suffix=".part") as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def _taken(path: Path, output: Path, *, native: bool) -> str:
    lines: list[str] = []
    with suppress(OSError):  # it has just gone, or Windows lets nobody read it
        lines = path.read_text(errors="replace").splitlines()
    machine = f" on {lines[1]}" if lines[1:] else ""
    holder = f" (process {lines[0]}{machine})" if lines else ""
    stale = "" if native else f"; if it was killed{machine}, delete {path}"
    return f"another run{holder} is writing {output}: wait for it, or choose another output{stale}"
