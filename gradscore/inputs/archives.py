"""Images in .zip and .tar archives, read one at a time without unpacking them."""

import bz2
import gzip
import lzma
import os
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shutil import copyfileobj
from typing import Any

from gradscore.errors import InputError
from gradscore.inputs.containers import Container, Reading
from gradscore.inputs.content import require_size
from gradscore.inputs.encoded import SUFFIXES
from gradscore.inputs.entries import Entry, ImageEntry, Listing, utf8

_BROKEN = (
    OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
    tarfile.TarError,
)  # fmt: skip
_PACKED: Mapping[str, Callable[..., Any]] = {
    ".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open,
}  # fmt: skip


@dataclass(frozen=True)
class ZipMember(ImageEntry):
    """An image in a zip archive."""

    id: str
    archive: zipfile.ZipFile
    info: zipfile.ZipInfo

    def content(self) -> bytes:
        """Unpack the member and verify its checksum."""
        require_size(self.info.file_size)
        try:
            return self.archive.read(self.info)
        except _BROKEN as error:
            raise InputError(f"cannot be unpacked: {error}") from error


class ZipImages(Listing):
    """The images of a zip archive in its own order.

    An id is the prefix and the path in the archive.
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        self._prefix = prefix
        try:
            self._archive = zipfile.ZipFile(path)
        except _BROKEN as error:
            raise InputError(f"{path} is not a readable zip archive: {error}") from error
        self._infos = [info for info in self._archive.infolist() if not info.is_dir() and _is_image(info.filename)]
        _require_some(self._infos, path)

    def __len__(self) -> int:
        return len(self._infos)

    def entry(self, index: int) -> Entry:
        """Return the entry of one member."""
        info = self._infos[index]
        return ZipMember(utf8(self._prefix + info.filename), self._archive, info)

    def ids(self) -> Iterator[str]:
        """Yield the ids in order."""
        return (utf8(self._prefix + info.filename) for info in self._infos)


@dataclass(frozen=True)
class TarMember(ImageEntry):
    """An image in a tar archive, found by its offset in the file."""

    id: str
    archive: "_Unpacked"
    offset: int
    size: int

    def content(self) -> bytes:
        """Read the member at its offset.

        The shared file position does not move, so threads can read at once.
        """
        require_size(self.size)
        try:
            content = os.pread(self.archive.descriptor, self.size, self.offset)
        except OSError as error:
            raise InputError(f"cannot be unpacked: {error.strerror}") from error
        if len(content) != self.size:
            raise InputError(f"cannot be unpacked: the archive ends {self.size - len(content):,} bytes too early")
        return content


class TarImages(Listing):
    """The images of a tar archive in its own order.

    An id is the prefix and the path in the archive.

    A compressed archive allows no random access. It is decompressed once, into an unnamed temporary file that
    disappears with the process.
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        self._prefix = prefix
        try:
            self._archive = _Unpacked(path)
            self._members = list(self._listed())
        except _BROKEN as error:
            raise InputError(f"{path} is not a readable tar archive: {error or type(error).__name__}") from error
        _require_some(self._members, path)

    def __len__(self) -> int:
        return len(self._members)

    def entry(self, index: int) -> Entry:
        """Return the entry of one member."""
        name, offset, size = self._members[index]
        return TarMember(utf8(self._prefix + name), self._archive, offset, size)

    def ids(self) -> Iterator[str]:
        """Yield the ids in order."""
        return (utf8(self._prefix + name) for name, _, _ in self._members)

    def _listed(self) -> Iterator[tuple[str, int, int]]:
        with (
            open(self._archive.descriptor, "rb", closefd=False) as file,
            tarfile.open(fileobj=file, mode="r:") as archive,
        ):
            for member in archive:
                archive.members = []  # type: ignore[attr-defined] # tarfile would keep every member in memory
                if member.isreg() and _is_image(member.name):
                    if member.issparse():
                        raise tarfile.ReadError(f"{member.name} is stored sparse, with its zeros left out")
                    yield member.name, member.offset_data, member.size


class _Unpacked:
    """A tar archive without compression. Its file stays open as long as the object lives."""

    def __init__(self, path: Path) -> None:
        opener = _PACKED.get(path.suffix.lower())
        with path.open("rb") if opener is None else tempfile.TemporaryFile() as file:
            if opener is not None:
                with opener(path, "rb") as packed:
                    copyfileobj(packed, file, 1 << 20)
                file.flush()
            self.descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.descriptor)
        os.lseek(self.descriptor, 0, os.SEEK_SET)


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = path.parts[:1] == ("__MACOSX",) or path.name.startswith("._")  # macOS adds these files to its archives
    return path.suffix.lower() in SUFFIXES and not hidden


def _require_some(found: list[Any], path: Path) -> None:
    if not found:
        raise InputError(f"archive {path} holds no images (looked for {', '.join(sorted(SUFFIXES))})")


def _open_zip(path: Path, reading: Reading) -> Listing:
    return ZipImages(path, reading.prefix)


def _open_tar(path: Path, reading: Reading) -> Listing:
    return TarImages(path, reading.prefix)


CONTAINERS: Mapping[str, Container] = {
    ".zip": _open_zip,
    ".tar": _open_tar,
    ".tar.gz": _open_tar,
    ".tgz": _open_tar,
    ".tar.bz2": _open_tar,
    ".tar.xz": _open_tar,
}
