"""One run on one output: a lock that the operating system drops with its process, however that ends."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradscore.errors import OutputExistsError

LOCK = ".lock"


@contextmanager
def locked(folder: Path, *, output: Path) -> Iterator[None]:
    """Hold the lock of a folder while the block runs; `output` names it in errors. A killed run leaves no lock behind.

    Raises
    ------
    OutputExistsError
        Another process holds it.
    OSError
        The folder cannot be written.
    """
    path = folder / LOCK
    descriptor = _acquired(path, output)
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        if sys.platform != "win32":  # Windows deletes no open file
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquired(path: Path, output: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
            found = path.stat() if path.exists() else None
        except OSError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise OutputExistsError(
                f"another run{f' (process {holder})' if holder else ''} is writing {output}: wait for it, or choose another output"
            ) from error
        if found is not None and os.path.samestat(found, os.fstat(descriptor)):
            return descriptor
        os.close(descriptor)  # its last holder removed the file between our opening and locking it


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - not there elsewhere

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl  # noqa: PLC0415 - not there on Windows

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
