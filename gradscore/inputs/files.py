"""Images in files of their own: folders, and lists of paths."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from gradscore.errors import InputError
from gradscore.images import SUFFIXES
from gradscore.inputs.entries import Entry, ImageFile, Listing, utf8
from gradscore.inputs.remote import RemoteFile, is_url


class FolderFiles(Listing):
    """The images below a folder, sorted; an id is the path below it after a prefix."""

    def __init__(self, root: Path, prefix: str = "") -> None:
        self._root, self._prefix = root, prefix
        self._names = sorted(_images_below(root), key=lambda name: name.replace(os.sep, "\0"))
        if not self._names:
            raise InputError(f"folder {root} holds no images (looked for {', '.join(sorted(SUFFIXES))}, recursively)")

    def __len__(self) -> int:
        return len(self._names)

    def entry(self, index: int) -> Entry:
        """Name the file; nothing is opened."""
        return ImageFile(self._id(self._names[index]), self._root / self._names[index])

    def ids(self) -> Iterator[str]:
        """Yield the paths."""
        return map(self._id, self._names)

    def _id(self, name: str) -> str:
        return utf8(self._prefix + name.replace(os.sep, "/"))


class ListedFiles(Listing):
    """Images by path or URL; nothing is opened before its turn, so a name that leads nowhere is an error row."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    @classmethod
    def parse(cls, content: bytes, where: str) -> "ListedFiles":
        """Read one path a line, or paths that end in NUL as `find -print0` writes them; bytes need not be UTF-8."""
        found = content.split(b"\0") if b"\0" in content else content.splitlines()
        names = [os.fsdecode(name) for name in found if name.strip()]
        if not names:
            raise InputError(f"{where} lists no inputs: give one path a line")
        return cls(names)

    def __len__(self) -> int:
        return len(self._names)

    def entry(self, index: int) -> Entry:
        """Name the file or the remote object."""
        name = self._names[index]
        return RemoteFile(utf8(name), name) if is_url(name) else ImageFile(utf8(name), Path(name))

    def ids(self) -> Iterator[str]:
        """Yield the names."""
        return map(utf8, self._names)


def _images_below(root: Path) -> Iterator[str]:
    """Yield the images of a tree, following links; a folder that contains itself through links is entered once."""
    pending: list[tuple[str, frozenset[str]]] = [("", frozenset())]
    while pending:
        below, above = pending.pop()
        folder = root / below
        real = os.path.realpath(folder)
        if real in above:
            continue
        try:
            with os.scandir(folder) as found:
                for item in found:
                    if os.path.isdir(item.path) if item.is_symlink() else item.is_dir():  # noqa: PTH112 - False for loops
                        pending.append((f"{below}{item.name}{os.sep}", above | {real}))
                    elif os.path.splitext(item.name)[1].lower() in SUFFIXES:  # noqa: PTH122 - a million names
                        yield below + item.name
        except OSError as error:
            raise InputError(f"cannot list the folder {folder}: {error.strerror}") from error
