"""Image folders, files and .npz archives -> entries with ids, in a fixed order, read one at a time."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gradscore.errors import InputError
from gradscore.images import SUFFIXES, decode, to_input
from gradscore.metadata import ModelMetadata, Preprocessing

ARCHIVE_SUFFIXES = frozenset({".npy", ".npz"})
_ARRAY_NAMES = ("images", "x")
_ARRAY_SUFFIXES = ARCHIVE_SUFFIXES


class Entry(Protocol):
    """One input: its id, and how it is read."""

    @property
    def id(self) -> str:
        """Where the input comes from; unique in its source."""

    def read(self, metadata: ModelMetadata) -> NDArray[np.float32]:
        """Return the model's input without its batch dimension; raises InputError where it cannot be had."""


@dataclass(frozen=True)
class ImageFile:
    """An image in a file of its own."""

    id: str
    path: Path

    def read(self, metadata: ModelMetadata) -> NDArray[np.float32]:
        """Decode the file."""
        if metadata.preprocessing.kind != "image":
            raise InputError(f"the model's input {list(metadata.input_shape)} is not an image: give .npz or .npy arrays")
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read the file: {error.strerror}") from error
        return decode(content, metadata.preprocessing)


@dataclass(frozen=True)
class ArrayRow:
    """One row of an array that holds many inputs."""

    id: str
    rows: NDArray[np.generic]
    index: int

    def read(self, metadata: ModelMetadata) -> NDArray[np.float32]:
        """Return the row, preprocessed if it holds pixels."""
        one = self.rows[self.index : self.index + 1]
        return to_input(one, metadata.preprocessing, metadata.input_shape)[0]


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
    start with the folder's name.

    Raises
    ------
    InputError
        A path does not exist, a folder holds no images, or two inputs have the same id.
    """
    entries: list[Entry] = []
    for path in map(Path, paths):
        prefix = f"{path.name}/" if len(paths) > 1 and path.is_dir() else ""
        entries.extend(_entries_of(path, prefix))
    if not entries:
        raise InputError("no inputs given: name image folders, image files or .npz arrays")
    seen: set[str] = set()
    for entry in entries:
        if entry.id in seen:
            raise InputError(f"two inputs have the id {entry.id!r}: score their folders separately")
        seen.add(entry.id)
    return Source(entries)


def _entries_of(path: Path, prefix: str) -> Sequence[Entry]:
    if path.is_dir():
        return _folder(path, prefix)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix.lower() in _ARRAY_SUFFIXES:
        rows = _array(path)
        return [ArrayRow(f"{path.name}#{index}", rows, index) for index in range(len(rows))]
    return [ImageFile(path.as_posix(), path)]


def _folder(path: Path, prefix: str) -> Sequence[Entry]:
    files = sorted(
        Path(folder, name)
        for folder, _, names in os.walk(path, followlinks=False)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES
    )
    if not files:
        raise InputError(f"folder {path} holds no images (looked for {', '.join(sorted(SUFFIXES))}, recursively)")
    return [ImageFile(prefix + file.relative_to(path).as_posix(), file) for file in files]


def _array(path: Path) -> NDArray[np.generic]:
    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix.lower() == ".npy" else None)
        array = loaded if isinstance(loaded, np.ndarray) else _named_array(loaded, path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a readable NumPy file: {error}") from error
    if array.ndim < 2 or not len(array):
        raise InputError(f"{path} holds an array of shape {list(array.shape)}: the first axis must count inputs")
    return array


def _named_array(archive: np.lib.npyio.NpzFile, path: Path) -> NDArray[np.generic]:
    with archive:
        names = [name for name in _ARRAY_NAMES if name in archive.files] or archive.files
        if len(names) != 1 and names[0] not in _ARRAY_NAMES:
            raise InputError(f"{path} holds the arrays {', '.join(archive.files)}: name the inputs `images` or `x`")
        array: NDArray[np.generic] = archive[names[0]]
        return array


def preprocessing_text(preprocessing: Preprocessing) -> str:
    """Describe in a line what happens to an image before the model sees it."""
    if preprocessing.kind == "array":
        return "arrays, taken as they are"
    size = f"{preprocessing.channels}×{preprocessing.height}×{preprocessing.width}"
    return f"images to {size}, (pixel · {preprocessing.scale:.6g} − {preprocessing.mean}) / {preprocessing.std}, color {preprocessing.color}"
