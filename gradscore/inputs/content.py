"""Reading whole files, with a limit on their size."""

import os
import stat

from gradscore.errors import InputError

LARGEST_FILE = 2**30
SLOW = 5.0  # seconds to read one input, above which the log names it: a slow disk or network, or a huge image
# Without O_NONBLOCK (missing on Windows), opening a pipe would wait forever.
_TO_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def content_of(path: str | os.PathLike[str]) -> bytes:
    """Read a file.

    Raises
    ------
    InputError
        The path cannot be read, is not a regular file, or is larger than 1 GiB.
    """
    try:
        descriptor = os.open(path, _TO_READ)
        try:
            return _whole(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror}") from error
    except ValueError as error:  # a name from a list contains a NUL
        raise InputError(f"cannot read the file: {error}") from error


def _whole(descriptor: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise InputError("this is not a regular file")
    require_size(status.st_size)
    content = os.read(descriptor, status.st_size)
    while len(content) < status.st_size and (more := os.read(descriptor, status.st_size - len(content))):
        content += more  # a network file system may return less at a time
    return content


def require_size(size: int) -> None:
    """Refuse content larger than any image: reading it could use up the memory."""
    if size > LARGEST_FILE:
        raise InputError(f"the file has {size:,} bytes; an image of more than 1 GiB is not read")
