"""Sources: folders, files, archives, arrays and tables as entries with ids, in a fixed order.

A source can also be a glob, a list of paths, or any URL that fsspec knows. Its entries are read one at a time.
"""

import glob
import os
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradscore.errors import InputError
from gradscore.inputs import archives, arrays, columns
from gradscore.inputs.containers import Container, Reading
from gradscore.inputs.entries import ArrayRow, Entry, ImageEntry, ImageFile, Joined, Listing, ids_of
from gradscore.inputs.folders import FolderFiles, ListedFiles
from gradscore.inputs.remote import RemoteFiles, fetched, is_folder, is_url, remove, require_there

__all__ = ["ArrayRow", "Entry", "ImageEntry", "ImageFile", "Source", "open_source"]


CONTAINERS: Mapping[str, Container] = {**archives.CONTAINERS, **arrays.CONTAINERS, **columns.CONTAINERS}
"""Openers by the endings of file names; the first ending that fits decides."""


@dataclass(frozen=True)
class Source:
    """Entries in a fixed order. The length is known before any input is read."""

    entries: Sequence[Entry]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def ids(self) -> Iterator[str]:
        """Yield the ids in order."""
        return ids_of(self.entries)

    def first(self, count: int | None) -> "Source":
        """Return a source of the first `count` entries, or of all entries if `count` is None."""
        return self if count is None else Source(self.entries[:count])


def open_source(paths: Sequence[str | os.PathLike[str]], *, idx_transposed: bool = False) -> Source:
    """List the inputs in folders, image files, archives, arrays and tables, local or remote.

    Folders are searched recursively, links included, and sorted. Archives, arrays and tables are recognised by the
    suffixes in `CONTAINERS`. A single image file may have any suffix: its content decides. An archive or a table behind
    a URL is downloaded first. `@FILE` is a file that lists one path or URL a line, relative to the working folder. `-`
    is such a list on stdin. A name with *, ? or [ that does not exist is a glob; ** stands for any folders.

    An id is the path below the folder or in the archive, the file's own path, or `arrays.npz#row`. With several inputs,
    the ids of folders and archives start with their names. If a row's class is known, from an idx1 file beside an
    idx3 file or from a column `label`, its id starts with the class: `3/train-images-idx3-ubyte#0`. Bytes of a file
    name that are not UTF-8 are written as %XX.

    Parameters
    ----------
    paths
        Paths, URLs, globs, `@FILE` or `-`, as described above.
    idx_transposed
        Whether the images in idx files are stored with rows and columns exchanged, as those of EMNIST are.

    Returns
    -------
    Source
        The entries in a fixed order, not read yet.

    Raises
    ------
    InputError
        A path does not exist, a folder cannot be listed or holds no images, a container cannot be read, or two inputs
        have the same id.
    """
    texts = [os.fspath(path) for path in paths]
    listings = [
        _listing(text, Reading(_name(text) + "/" if len(texts) > 1 else "", idx_transposed)) for text in texts
    ]  # fmt: skip
    if not listings:
        raise InputError("no inputs given: name image folders, image files or .npz arrays")
    source = Source(listings[0] if len(listings) == 1 else Joined(listings))
    _refuse_repeated(source)
    return source


def _refuse_repeated(source: Source) -> None:
    """Refuse two inputs with one id.

    Hashes are compared first: a set of a million ids would take too much memory.
    """
    hashes = np.fromiter(map(hash, source.ids()), np.int64, len(source))
    ordered = np.sort(hashes)
    suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    seen: set[str] = set()
    for name in source.ids() if suspects else ():
        if name in seen:
            raise InputError(f"two inputs have the id {name!r}: score them separately")
        if hash(name) in suspects:
            seen.add(name)


def _listing(text: str, reading: Reading) -> Listing:
    if text == "-":
        return ListedFiles.parse(sys.stdin.buffer.read(), "stdin")
    if is_url(text):
        return _remote(text, reading)
    path = Path(text)
    if path.is_dir():
        return FolderFiles(path, reading.prefix)
    if path.exists():
        return _file(path, text, reading)
    if text.startswith("@"):
        return _list(Path(text[1:]))
    if glob.has_magic(text):
        return _globbed(text, reading)
    raise InputError(f"{path}: no such file or folder")


def _file(path: Path, text: str, reading: Reading) -> Listing:
    container = _container(path.name)
    return container(path, reading) if container else ListedFiles([Path(text).as_posix()])


def _container(name: str) -> Container | None:
    return next((open_ for suffix, open_ in CONTAINERS.items() if name.lower().endswith(suffix)), None)


def _list(path: Path) -> Listing:
    try:
        return ListedFiles.parse(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"cannot read the list {path}: {error.strerror}") from error


def _globbed(pattern: str, reading: Reading) -> Listing:
    found = sorted(name for name in glob.iglob(pattern, recursive=True) if not Path(name).is_dir())  # noqa: PTH207 - Path.glob drops ./
    if not found:
        raise InputError(f"{pattern}: no file matches")
    if not any(_container(name) for name in found):
        return ListedFiles(found)
    return Joined([_file(Path(name), name, reading) for name in found])


def _remote(url: str, reading: Reading) -> Listing:
    container = _container(url)
    if container is not None:
        copy = fetched(url)
        try:
            listing = container(copy, reading)
        except BaseException:
            remove(copy)
            raise
        weakref.finalize(listing, remove, copy)
        return listing
    if is_folder(url):
        return RemoteFiles(url, reading.prefix)
    require_there(url)
    return ListedFiles([url])


def _name(text: str) -> str:
    return text.rstrip("/").rpartition("/")[2] if is_url(text) else Path(text).resolve().name
