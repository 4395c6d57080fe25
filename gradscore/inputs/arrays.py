"""Arrays that hold many inputs: .npy, .npz, and the idx files of MNIST and EMNIST."""

import gzip
import math
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from gradscore.errors import InputError
from gradscore.inputs.containers import Container, Reading
from gradscore.inputs.entries import ArrayRow, Entry, Listing, Rows, utf8
from gradscore.inputs.stored import StoredRows

_ARRAY_NAMES = ("images", "x")
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_BROKEN = (
    OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip
_CHUNK = 1 << 20


class ArrayRows(Listing):
    """The rows of an array. An id is `name#row`, or `class/name#row` where the class is known."""

    def __init__(self, path: Path, rows: Rows, labels: NDArray[np.generic] | None = None) -> None:
        self._name, self._rows, self._labels = utf8(path.name), rows, labels
        if len(rows.shape) < 2 or not len(rows):
            raise InputError(f"{path} holds an array of shape {list(rows.shape)}: the first axis must count inputs")
        if labels is not None and labels.shape != (len(rows),):
            raise InputError(f"{path} holds {len(rows)} inputs, but its labels have the shape {list(labels.shape)}")

    def __len__(self) -> int:
        return len(self._rows)

    def entry(self, index: int) -> Entry:
        """Return the entry of one row."""
        return ArrayRow(self._id(index), self._rows, index)

    def ids(self) -> Iterator[str]:
        """Yield the ids in order."""
        return map(self._id, range(len(self)))

    def _id(self, index: int) -> str:
        name = f"{self._name}#{index}"
        return name if self._labels is None else f"{self._labels[index]}/{name}"


def open_npy(path: Path) -> Listing:
    """List the rows of a .npy file.

    Each row is read from the file when it is needed.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_column, kind = header(file)
            if by_column or kind.hasobject:  # rows are not contiguous, or hold no numbers: NumPy reads or refuses them
                file.seek(0)
                return ArrayRows(path, np.lib.format.read_array(file, allow_pickle=False))
            return ArrayRows(path, StoredRows(file, file.tell(), kind, shape))
    except _BROKEN as error:
        raise InputError(f"{path} is not a readable NumPy file: {error}") from error


def open_npz(path: Path) -> Listing:
    """List the rows of an .npz archive's only array, or of its array `images` or `x`."""
    try:
        return ArrayRows(path, _archived(path))
    except _BROKEN as error:
        raise InputError(f"{path} is not a readable NumPy file: {error}") from error


def open_idx(path: Path, *, transposed: bool = False) -> Listing:
    """List the rows of an idx file, gzipped or not.

    Labels come from the idx1 file beside it, if there is one.
    """
    rows = _idx(path, transposed=transposed)
    beside = path.with_name(re.sub(r"images([-.])idx3", r"labels\1idx1", path.name))
    labels = _idx(beside)[:] if beside != path and beside.exists() else None
    return ArrayRows(path, rows, labels)


def _archived(path: Path) -> NDArray[np.generic]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        names = [name for name in _ARRAY_NAMES if name in archive.files] or archive.files
        if not names:
            raise InputError(f"{path} holds no arrays")
        if len(names) != 1 and names[0] not in _ARRAY_NAMES:
            raise InputError(f"{path} holds the arrays {', '.join(archive.files)}: name the inputs `images` or `x`")
        array: NDArray[np.generic] = archive[names[0]]
        return array


def _idx(path: Path, *, transposed: bool = False) -> StoredRows:
    """Open an idx file. A gzipped one is first unpacked into an unnamed temporary file."""
    try:
        with path.open("rb") as file:
            if path.suffix.lower() != ".gz":
                return _stored(file, path, transposed=transposed)
            with gzip.open(file) as packed, tempfile.TemporaryFile() as unpacked:
                _copy(packed, unpacked)
                return _stored(unpacked, path, transposed=transposed)
    except _BROKEN as error:
        raise InputError(f"{path} is not a readable idx file: {error}") from error


def _stored(file: IO[bytes], path: Path, *, transposed: bool) -> StoredRows:
    file.seek(0)
    zeros, code, axes = struct.unpack(">HBB", file.read(4))
    if zeros or code not in _IDX_TYPES:
        raise InputError(f"{path} is not a readable idx file: its first four bytes are not those of the format")
    shape = struct.unpack(f">{axes}I", file.read(4 * axes))
    kind, start = np.dtype(_IDX_TYPES[code]), 4 + 4 * axes
    size = file.seek(0, 2)
    if size != start + kind.itemsize * math.prod(shape):
        raise InputError(
            f"{path} is not a readable idx file: {size:,} bytes do not hold an array of shape {list(shape)}"
        )
    return StoredRows(file, start, kind, shape, transposed=transposed)


def _copy(packed: gzip.GzipFile, unpacked: IO[bytes]) -> None:
    """Unpack only the size stated in the header, plus one byte.

    A gzip bomb then fails the check of the size, and cannot fill the disk.
    """
    header = packed.read(4)
    axes = header[3] if len(header) == 4 else 0
    extents = packed.read(4 * axes)
    unpacked.write(header + extents)
    kind = _IDX_TYPES.get(header[2] if len(header) == 4 else 0, ">u1")
    left = math.prod(struct.unpack(f">{axes}I", extents)) * np.dtype(kind).itemsize + 1
    while left > 0 and (chunk := packed.read(min(left, _CHUNK))):
        unpacked.write(chunk)
        left -= len(chunk)


def _open_idx(path: Path, reading: Reading) -> Listing:
    return open_idx(path, transposed=reading.idx_transposed)


CONTAINERS: Mapping[str, Container] = {
    ".npy": lambda path, _: open_npy(path),
    ".npz": lambda path, _: open_npz(path),
    ".idx": _open_idx,
    ".idx.gz": _open_idx,
    "-ubyte": _open_idx,
    "-ubyte.gz": _open_idx,
}
