"""Inputs behind URLs, read through fsspec: s3://, gs://, https:// and every other protocol it knows."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from gradscore.errors import InputError
from gradscore.inputs.content import require_size
from gradscore.inputs.encoded import SUFFIXES
from gradscore.inputs.entries import Entry, ImageEntry, Listing, utf8


def is_url(name: str) -> bool:
    """Return whether a name is a URL and not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name) is not None


@dataclass(frozen=True)
class RemoteFile(ImageEntry):
    """An image behind a URL."""

    id: str
    url: str

    def content(self) -> bytes:
        """Fetch the image."""
        system, path = file_system(self.url)
        try:
            content: bytes = system.cat_file(path)
        except Exception as error:  # each file system raises its own
            raise InputError(f"cannot fetch {self.url}: {_reason(error)}") from error
        require_size(len(content))
        return content


class RemoteFiles(Listing):
    """The images below a URL, sorted.

    An id is the prefix and the path below the URL.
    """

    def __init__(self, url: str, prefix: str = "") -> None:
        system, root = file_system(url)
        self._url, self._prefix = url.rstrip("/"), prefix
        try:
            found = system.find(root)
        except Exception as error:  # each file system raises its own
            raise InputError(f"cannot list {url}: {_reason(error)}") from error
        start = len(root.rstrip("/")) + 1
        names = [name[start:] for name in found if PurePosixPath(name).suffix.lower() in SUFFIXES]
        self._names = sorted(names, key=lambda name: name.replace("/", "\0"))
        if not names:
            raise InputError(f"{url} holds no images (looked for {', '.join(sorted(SUFFIXES))}, recursively)")

    def __len__(self) -> int:
        return len(self._names)

    def entry(self, index: int) -> Entry:
        """Return the entry of one image, without fetching it."""
        name = self._names[index]
        return RemoteFile(utf8(self._prefix + name), f"{self._url}/{name}")

    def ids(self) -> Iterator[str]:
        """Yield the ids in order."""
        return (utf8(self._prefix + name) for name in self._names)


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.

    Raises
    ------
    InputError
        The protocol is unknown, or the package for it is not installed.
    """
    from fsspec.core import url_to_fs  # noqa: PLC0415 - local inputs need no fsspec

    try:
        system, path = url_to_fs(url)
    except ImportError as error:
        raise InputError(f"cannot open {url}: {_reason(error)}{_remedy(url)}") from error
    except ValueError as error:
        raise InputError(f"cannot open {url}: {_reason(error)}") from error
    return system, path


def is_folder(url: str) -> bool:
    """Return whether a URL names a folder."""
    system, path = file_system(url)
    try:
        return bool(url.endswith("/") or system.isdir(path))
    except Exception as error:  # each file system raises its own
        raise InputError(f"cannot open {url}: {_reason(error)}") from error


def require_there(url: str) -> None:
    """Refuse a URL that does not exist.

    Raises
    ------
    InputError
        There is nothing at the URL, or its server does not answer.
    """
    system, path = file_system(url)
    try:
        there = system.exists(path)
    except Exception as error:  # each file system raises its own
        raise InputError(f"cannot open {url}: {_reason(error)}") from error
    if not there:
        raise InputError(f"{url}: no such object or folder")


def fetched(url: str) -> Path:
    """Copy a remote archive or table into its own temporary folder.

    The caller deletes it with `remove`.
    """
    system, path = file_system(url)
    copy = Path(tempfile.mkdtemp(prefix="gradscore-")) / PurePosixPath(path).name
    try:
        system.get_file(path, str(copy))
    except Exception as error:  # each file system raises its own
        remove(copy)
        raise InputError(f"cannot fetch {url}: {_reason(error)}") from error
    return copy


def remove(copy: Path) -> None:
    """Delete the copy that `fetched` made, with its folder."""
    shutil.rmtree(copy.parent, ignore_errors=True)


def _remedy(url: str) -> str:
    """Return the command that installs the package for a URL's protocol, or an empty text."""
    from fsspec.registry import known_implementations  # noqa: PLC0415 - local inputs need no fsspec

    known = known_implementations.get(url.partition("://")[0].lower(), {"class": "fsspec"})
    package = str(known["class"]).partition(".")[0]
    return "" if package == "fsspec" else f": run `pip install {package}`"


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
