"""Rows of an array in a file, read from the file one slice at a time.

The file is not memory-mapped: if another process truncated a mapped file, every process that reads it would crash.
"""

import math
import os
import threading
import weakref
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gradscore.errors import InputError

_TURN = threading.Lock()


def read_in_turn(descriptor: int, size: int, offset: int) -> bytes:
    """Replace `os.pread`, which is missing on Windows.

    An open file has one position, so threads take turns.
    """
    with _TURN:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


read_at = getattr(os, "pread", read_in_turn)


class StoredRows:
    """An array whose rows are stored one after the other in a file.

    The file stays open as long as the object lives.

    Parameters
    ----------
    file
        The open file. It is duplicated, so the caller may close it.
    start
        Offset of the first row in the file, in bytes.
    kind
        NumPy type of the numbers.
    shape
        Shape of the array as stored. The first extent is the number of rows.
    transposed
        Whether each row is stored with its first two axes exchanged.

    Raises
    ------
    ValueError
        The file is too short for the array.
    """

    def __init__(
        self, file: IO[bytes], start: int, kind: np.dtype[Any], shape: tuple[int, ...], *, transposed: bool = False
    ) -> None:
        self._start, self.dtype, self._stored = start, kind, shape
        self._transposed = transposed and len(shape) > 2
        self.shape = (shape[0], shape[2], shape[1], *shape[3:]) if self._transposed else shape
        if os.fstat(file.fileno()).st_size < start + kind.itemsize * math.prod(shape):
            raise ValueError(f"it is too short for an array of shape {list(shape)}")
        self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> NDArray[np.generic]:
        first, end, _ = part.indices(len(self))
        shape = (max(0, end - first), *self._stored[1:])
        size = self.dtype.itemsize * math.prod(self._stored[1:])
        rows = np.frombuffer(self._read(size * shape[0], self._start + size * first), self.dtype).reshape(shape)
        return rows.swapaxes(1, 2) if self._transposed else rows

    def _read(self, size: int, offset: int) -> bytes:
        """Read at an offset.

        The shared file position does not move, so threads can read at once.
        """
        try:
            content = read_at(self._descriptor, size, offset)
            while len(content) < size and (
                more := read_at(self._descriptor, size - len(content), offset + len(content))
            ):
                content += more  # a network file system may return less at a time
        except OSError as error:
            raise InputError(f"the array cannot be read here: {error.strerror}") from error
        if len(content) != size:
            raise InputError(
                f"the array cannot be read here: its file now ends {size - len(content):,} bytes too early"
            )
        return content
