"""A file's content, whole or not at all."""

import os
import stat

from gradscore.errors import InputError

LARGEST_FILE = 2**30
SLOW = 5.0  # seconds to read one input: a disk, a network or a picture that the log should name
# Without O_NONBLOCK, which Windows lacks, opening a pipe would wait for ever.
_TO_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def content_of(path: str | os.PathLike[str]) -> bytes:
    """Read a file.

    Raises
    ------
    InputError
        It cannot be read, is none, or is larger than any image.
    """
    try:
        descriptor = os.open(path, _TO_READ)
        try:
            return _whole(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror}") from error
    except ValueError as error:  # a NUL in a name from a list
        raise InputError(f"cannot read the file: {error}") from error


def _whole(descriptor: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise InputError("this is no regular file")
    require_size(status.st_size)
    content = os.read(descriptor, status.st_size)
    while len(content) < status.st_size and (more := os.read(descriptor, status.st_size - len(content))):
        content += more  # a network's file system may give less at a time
    return content


def require_size(size: int) -> None:
    """Refuse content that no image has: reading it would take the memory of all others."""
    if size > LARGEST_FILE:
        raise InputError(f"the file has {size:,} bytes; an image of more than 1 GiB is not read")
