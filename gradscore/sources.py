"""Image folders, files and .npz archives -> entries with ids, in a fixed order, read one at a time."""

import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gradscore.errors import InputError
from gradscore.images import SUFFIXES, decode, to_input
from gradscore.metadata import ModelMetadata

ARRAY_SUFFIXES = frozenset({".npy", ".npz"})
_ARRAY_NAMES = ("images", "x")
_LARGEST_FILE = 2**30


class Entry(Protocol):
    """One input: its id, and how it is read."""

    @property
    def id(self) -> str:
        """Where the input comes from; unique in its source."""

    def read(self, metadata: ModelMetadata) -> NDArray[Any]:
        """Return the model's input without its batch dimension; raises InputError where it cannot be had."""


@dataclass(frozen=True)
class ImageFile:
    """An image in a file of its own."""

    id: str
    path: Path

    def read(self, metadata: ModelMetadata) -> NDArray[np.float32]:
        """Decode the file."""
        if metadata.preprocessing.kind != "image":
            shape = ["B", *(extent or "?" for extent in metadata.input_shape[1:])]
            raise InputError(f"the model's input [{', '.join(map(str, shape))}] is no image: give .npz or .npy arrays")
        return decode(self._content(), metadata.preprocessing)

    def _content(self) -> bytes:
        try:
            status = self.path.stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
                raise InputError("this is no regular file")
            if status.st_size > _LARGEST_FILE:
                raise InputError(f"the file has {status.st_size:,} bytes; an image of more than 1 GiB is not read")
            return self.path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read the file: {error.strerror}") from error


@dataclass(frozen=True)
class ArrayRow:
    """One row of an array that holds many inputs."""

    id: str
    rows: NDArray[np.generic]
    index: int

    def read(self, metadata: ModelMetadata) -> NDArray[Any]:
        """Return the row, preprocessed if it holds pixels."""
        one = self.rows[self.index : self.index + 1]
        row: NDArray[Any] = to_input(one, metadata.preprocessing, metadata.input_shape, metadata.inputs[0].dtype)[0]
        return row


@dataclass(frozen=True)
class Source:
    """Entries in a fixed order; its length is known before anything is read."""

    entries: Sequence[Entry]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)


def open_source(paths: Sequence[str | os.PathLike[str]]) -> Source:
    """Collect the inputs of folders (recursive, sorted), image files and .npz or .npy arrays.

    An id is the path below the folder given, or the file's own path, or `archive.npz#row`. With several folders the ids
    start with the folder's name. Bytes of a file name that are not UTF-8 are written as %XX. Linked folders are
    entered, but none inside itself. A file named by itself may have any suffix: what it holds decides.

    Raises
    ------
    InputError
        A path does not exist, a folder cannot be listed or holds no images, an array file cannot be read, or two inputs
        have the same id.
    """
    entries: list[Entry] = []
    for path in map(Path, paths):
        prefix = f"{path.resolve().name}/" if len(paths) > 1 and path.is_dir() else ""
        entries.extend(_entries_of(path, prefix))
    if not entries:
        raise InputError("no inputs given: name image folders, image files or .npz arrays")
    seen: set[str] = set()
    for entry in entries:
        if entry.id in seen:
            raise InputError(f"two inputs have the id {entry.id!r}: score them separately")
        seen.add(entry.id)
    return Source(entries)


def _entries_of(path: Path, prefix: str) -> Sequence[Entry]:
    if path.is_dir():
        return _folder(path, prefix)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix.lower() in ARRAY_SUFFIXES:
        rows, name = _array(path), _utf8(path.name)
        return [ArrayRow(f"{name}#{index}", rows, index) for index in range(len(rows))]
    return [ImageFile(_utf8(path.as_posix()), path)]


def _folder(path: Path, prefix: str) -> Sequence[Entry]:
    files = sorted(_images_below(path))
    if not files:
        raise InputError(f"folder {path} holds no images (looked for {', '.join(sorted(SUFFIXES))}, recursively)")
    return [ImageFile(_utf8(prefix + file.relative_to(path).as_posix()), file) for file in files]


def _images_below(root: Path) -> Iterator[Path]:
    """Yield the images of a tree, following links; a folder that contains itself through links is entered once."""
    pending: list[tuple[Path, frozenset[Path]]] = [(root, frozenset())]
    while pending:
        folder, above = pending.pop()
        real = folder.resolve()
        if real in above:
            continue
        try:
            with os.scandir(folder) as found:
                for item in found:
                    if os.path.isdir(item.path) if item.is_symlink() else item.is_dir():  # noqa: PTH112 - False for loops
                        pending.append((folder / item.name, above | {real}))
                    elif os.path.splitext(item.name)[1].lower() in SUFFIXES:  # noqa: PTH122 - a million names
                        yield folder / item.name
        except OSError as error:
            raise InputError(f"cannot list the folder {folder}: {error.strerror}") from error


def _utf8(name: str) -> str:
    """Write bytes that are not UTF-8, which Python holds as lone surrogates, as %XX: an id must be text."""
    return re.sub("[\udc80-\udcff]", lambda match: f"%{ord(match[0]) - 0xDC00:02X}", name)


def _array(path: Path) -> NDArray[np.generic]:
    try:
        array = np.lib.format.open_memmap(path, mode="r") if path.suffix.lower() == ".npy" else _archived(path)
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is not a readable NumPy file: {error}") from error
    if array.ndim < 2 or not len(array):
        raise InputError(f"{path} holds an array of shape {list(array.shape)}: the first axis must count inputs")
    return array


def _archived(path: Path) -> NDArray[np.generic]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        names = [name for name in _ARRAY_NAMES if name in archive.files] or archive.files
        if not names:
            raise InputError(f"{path} holds no arrays")
        if len(names) != 1 and names[0] not in _ARRAY_NAMES:
            raise InputError(f"{path} holds the arrays {', '.join(archive.files)}: name the inputs `images` or `x`")
        array: NDArray[np.generic] = archive[names[0]]
        return array
