"""Images in separate files: folders, and lists of paths."""

import os
from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import overload

from gradscore.errors import InputError
from gradscore.inputs.encoded import SUFFIXES
from gradscore.inputs.entries import Entry, ImageFile, Listing, utf8
from gradscore.inputs.remote import RemoteFile, is_url

_FOLDER = "\0"  # marks a folder; no file name contains NUL, and it sorts before every other character


class _Named(Listing):
    """Files listed by name.

    A slice copies its own names, so it does not keep the whole list alive.
    """

    _names: Sequence[str]

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Listing: ...
    def __getitem__(self, index: int | slice) -> Entry | Listing:
        if not isinstance(index, slice):
            return self.entry(index)
        part = copy(self)
        part._names = self._names[index]
        return part


class FolderFiles(_Named):
    """The images below a folder, sorted.

    An id is the prefix and the path below the folder.
    """

    def __init__(self, root: Path, prefix: str = "") -> None:
        self._below, self._prefix = os.path.join(root, ""), prefix  # noqa: PTH118 - names are appended to this text
        self._names = list(_images_below(root))
        if not self._names:
            raise InputError(f"folder {root} holds no images (looked for {', '.join(sorted(SUFFIXES))}, recursively)")

    def entry(self, index: int) -> Entry:
        """Return the entry of one file, without opening it."""
        name = self._names[index]
        return ImageFile(self._id(name), f"{self._below}{name}")

    def ids(self) -> Iterator[str]:
        """Yield the ids in order."""
        return map(self._id, self._names)

    def paths(self) -> list[str]:
        """Return the paths of the files."""
        return [self._below + name for name in self._names]

    def _id(self, name: str) -> str:
        return utf8(self._prefix + name.replace(os.sep, "/"))


class ListedFiles(_Named):
    """Images listed by path or URL.

    None is opened before it is read, so a missing one becomes an error row.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    @classmethod
    def parse(cls, content: bytes, where: str) -> "ListedFiles":
        """Parse one path a line, or paths that end in NUL, as `find -print0` writes them.

        Bytes need not be UTF-8.
        """
        found = content.split(b"\0") if b"\0" in content else content.splitlines()
        names = [os.fsdecode(name) for name in found if name.strip()]
        if not names:
            raise InputError(f"{where} lists no inputs: give one path a line")
        return cls(names)

    def entry(self, index: int) -> Entry:
        """Return the entry of one file or remote object."""
        name = self._names[index]
        return RemoteFile(utf8(name), name) if is_url(name) else ImageFile(utf8(name), name)

    def ids(self) -> Iterator[str]:
        """Yield the ids in order."""
        return map(utf8, self._names)

    def paths(self) -> list[str] | None:
        """Return the names, or None if one of them is a URL."""
        return None if any(map(is_url, self._names)) else list(self._names)


def _images_below(root: Path) -> Iterator[str]:
    """Yield the images of a tree in order, following links.

    A folder that links to itself is entered once.
    """
    levels = [("", iter(_names_in(root)), frozenset({os.path.realpath(root)}))]
    while levels:
        below, names, above = levels[-1]
        name = next(names, None)
        if name is None:
            levels.pop()
        elif not name.endswith(_FOLDER):
            yield below + name
        elif (real := os.path.realpath(root / (inner := f"{below}{name[:-1]}{os.sep}"))) not in above:
            levels.append((inner, iter(_names_in(root / inner)), above | {real}))


def _names_in(folder: Path) -> list[str]:
    """Return the names of images and of folders (marked by `_FOLDER`), sorted component by component."""
    names = []
    try:
        with os.scandir(folder) as found:
            for item in found:
                if os.path.isdir(item.path) if item.is_symlink() else item.is_dir():  # noqa: PTH112 - False for loops
                    names.append(item.name + _FOLDER)
                elif os.path.splitext(item.name)[1].lower() in SUFFIXES:  # noqa: PTH122 - Path objects are too slow for a million names
                    names.append(item.name)
    except OSError as error:
        raise InputError(f"cannot list the folder {folder}: {error.strerror}") from error
    names.sort()
    return names
