"""One input: its id and how to read it.

Listings are lazy: a million entries cost little more than their names.
"""

import os
import re
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from gradscore.errors import InputError
from gradscore.inputs.content import content_of
from gradscore.inputs.images import fitted, pixels
from gradscore.model.metadata import ModelMetadata


class Entry(Protocol):
    """One input: its id, and how to read it."""

    @property
    def id(self) -> str:
        """Where the input comes from; unique in its source."""

    def read(self, metadata: ModelMetadata) -> NDArray[Any]:
        """Return one input for `Scorer.score`, without the batch axis.

        Images are uint8 pixels at the model's size. All other inputs are numbers of the input's type.

        Raises
        ------
        InputError
            The input cannot be read, or does not fit the model.
        """


class Rows(Protocol):
    """An array whose rows can be read: a NumPy array, or one in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents. The first is the number of rows."""

    @property
    def dtype(self) -> Any:
        """NumPy type of the numbers."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> NDArray[np.generic]: ...


class ImageEntry:
    """An entry whose content is an encoded image."""

    def content(self) -> bytes:
        """Return the encoded image.

        Raises
        ------
        InputError
            The image cannot be read.
        """
        raise NotImplementedError

    def read(self, metadata: ModelMetadata) -> NDArray[np.uint8]:
        """Decode the image."""
        if metadata.preprocessing.kind != "image":
            shape = ["B", *(extent or "?" for extent in metadata.input_shape[1:])]
            raise InputError(
                f"the model's input [{', '.join(map(str, shape))}] is not an image: give .npz or .npy arrays"
            )
        return pixels(self.content(), metadata.preprocessing)


@dataclass(frozen=True)
class ImageFile(ImageEntry):
    """An image in a file of its own."""

    id: str
    path: str | os.PathLike[str]

    def content(self) -> bytes:
        """Read the file."""
        return content_of(self.path)


@dataclass(frozen=True)
class ArrayRow:
    """One row of an array that holds many inputs."""

    id: str
    rows: Rows
    index: int

    def read(self, metadata: ModelMetadata) -> NDArray[Any]:
        """Return the row."""
        one = self.rows[self.index : self.index + 1]
        row: NDArray[Any] = fitted(one, metadata.preprocessing, metadata.input_shape, metadata.inputs[0].dtype)[0]
        return row


class Listing(Sequence[Entry]):
    """Entries in a fixed order, each created on access."""

    @abstractmethod
    def entry(self, index: int) -> Entry:
        """Return one entry. The caller has checked that the index is within bounds."""

    def ids(self) -> Iterator[str]:
        """Yield the ids in order."""
        return (self.entry(index).id for index in range(len(self)))

    def paths(self) -> list[str] | None:
        """Return the paths of all entries in order if all are image files, else None."""
        return _paths(self)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> "Listing": ...
    def __getitem__(self, index: int | slice) -> "Entry | Listing":
        if isinstance(index, slice):
            return _Part(self, range(len(self))[index])
        return self.entry(range(len(self))[index])


class _Part(Listing):
    """Some entries of a listing."""

    def __init__(self, whole: Listing, indices: range) -> None:
        self._whole, self._indices = whole, indices

    def __len__(self) -> int:
        return len(self._indices)

    def entry(self, index: int) -> Entry:
        return self._whole.entry(self._indices[index])

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Listing: ...
    def __getitem__(self, index: int | slice) -> Entry | Listing:
        found = self._indices[index]
        return _Part(self._whole, found) if isinstance(found, range) else self._whole.entry(found)


class Joined(Listing):
    """Listings one after the other."""

    def __init__(self, parts: Sequence[Listing]) -> None:
        self._parts = parts
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def entry(self, index: int) -> Entry:
        """Return the entry from the part that contains the index."""
        part = bisect_right(self._ends, index)
        return self._parts[part].entry(index - (self._ends[part - 1] if part else 0))

    def ids(self) -> Iterator[str]:
        """Yield the ids in order."""
        for part in self._parts:
            yield from part.ids()


def ids_of(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield the ids of entries in order. A listing yields them without creating entries."""
    return entries.ids() if isinstance(entries, Listing) else (entry.id for entry in entries)


def paths_of(entries: Sequence[Entry]) -> list[str] | None:
    """Return the paths of entries in order if all are image files, else None."""
    return entries.paths() if isinstance(entries, Listing) else _paths(entries)


def _paths(entries: Sequence[Entry]) -> list[str] | None:
    found = [os.fspath(entry.path) for entry in entries if type(entry) is ImageFile]
    return found if len(found) == len(entries) else None


def utf8(name: str) -> str:
    """Write bytes that are not UTF-8 as %XX.

    Python holds them as lone surrogates, but an id must be text.
    """
    return (
        name
        if name.isascii()
        else re.sub("[\ud800-\udfff]", lambda match: f"%{ord(match[0]) - 0xDC00 & 0xFF:02X}", name)
    )
