"""True classes of inputs, from folders or a CSV file, and their agreement with predictions.

An input whose true class is not a class of the model is an *unknown concept*: no prediction for it can be right. A
misspelt class name looks the same, so such rows are an error unless the caller says that they count as incorrect.
"""

import csv
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import numpy.typing as npt

from gradscore.errors import InputError

UNKNOWN = -1  # the index of a class that the model does not have; no prediction equals it

IntArray = npt.NDArray[np.int64]
OnUnknown = Literal["error", "incorrect"]


def from_folders(ids: Sequence[str], class_names: Sequence[str], *, unknown: OnUnknown = "error") -> IntArray:
    """Return the true class of each input, int64 [N], from the names of its folders.

    The innermost folder with the name of a class counts. Both `3/0001.png` and `test/3/0001.png` have the class `3`.

    Parameters
    ----------
    ids : sequence of str, [N]
        Relative paths, as in a score table.
    class_names : sequence of str
        Names of the classes by index.
    unknown : {"error", "incorrect"}
        "incorrect" gives inputs in other folders the index −1.

    Raises
    ------
    InputError
        An id has no folder, or none of its folders is a class and `unknown` is "error".
    """
    index = _index_of(class_names)
    folders = [PurePosixPath(name.replace("\\", "/")).parts[:-1] for name in ids]
    if bare := [name for name, parts in zip(ids, folders, strict=True) if not parts]:
        raise InputError(
            f"{len(bare)} of {len(ids)} inputs lie in no folder that could name their class (such as {bare[0]!r}); "
            "give a CSV file with the columns id,label by `--labels`"
        )
    found = [next((index[part] for part in reversed(parts) if part in index), UNKNOWN) for parts in folders]
    labels = np.array(found, dtype=np.int64)
    _refuse_unknown(labels, ids, [parts[-1] for parts in folders], class_names, unknown, "folder")
    return labels


def from_csv(
    path: str | Path, ids: Sequence[str], class_names: Sequence[str], *, unknown: OnUnknown = "error"
) -> IntArray:
    """Return the true class of each input, int64 [N], from a CSV file.

    The file has the columns `id` and `label`. Labels are class names. If no label in the file is a class name, labels
    are class indices. Rows of other ids are ignored.

    Parameters
    ----------
    path : path
        The CSV file, in UTF-8.
    ids : sequence of str, [N]
        Ids, as in the score table.
    class_names : sequence of str
        Names of the classes by index.
    unknown : {"error", "incorrect"}
        "incorrect" gives labels that are not classes of the model the index −1.

    Raises
    ------
    InputError
        The file cannot be read, a column or an id is missing, or an id has two labels; or a label is not a class of the
        model and `unknown` is "error".
    """
    given = _read_csv(Path(path))
    if missing := [name for name in ids if name not in given]:
        raise InputError(
            f"{path} has no label for {len(missing)} of {len(ids)} inputs (such as {missing[0]!r}; its first id is "
            f"{next(iter(given), None)!r}); ids must be written as in the score table"
        )
    texts = [given[name] for name in ids]
    labels = _indices(texts, class_names)
    _refuse_unknown(labels, ids, texts, class_names, unknown, "label")
    return labels


def agreement(predicted: IntArray, true: IntArray) -> npt.NDArray[np.bool_]:
    """Return whether each prediction is right, bool [N].

    Unknown concepts and rows with an error (−1) are not.
    """
    return np.asarray((predicted == true) & (predicted >= 0), dtype=np.bool_)


def _indices(texts: Sequence[str], class_names: Sequence[str]) -> IntArray:
    index = _index_of(class_names)
    numbers = {str(number): number for number in range(len(class_names))}
    table = index if any(text in index for text in texts) else numbers
    return np.array([table.get(text, UNKNOWN) for text in texts], dtype=np.int64)


def _read_csv(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            if not {"id", "label"} <= set(reader.fieldnames or ()):
                raise InputError(f"{path} needs a header with the columns id and label; it has {reader.fieldnames}")
            return _unique(path, [(row["id"], row["label"], reader.line_num) for row in reader])
    except FileNotFoundError as cause:
        raise InputError(f"no such labels file: {path}") from cause
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise InputError(f"{path} cannot be read as a CSV file in UTF-8: {cause}") from cause


def _unique(path: Path, rows: Sequence[tuple[str | None, str | None, int]]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, label, line in rows:
        if not name or not label:
            raise InputError(f"{path}, line {line}: id or label is empty")
        if given.setdefault(name, label.strip()) != label.strip():
            raise InputError(f"{path}, line {line}: {name!r} is {given[name]!r} above and {label.strip()!r} here")
    return given


def _index_of(class_names: Sequence[str]) -> dict[str, int]:
    index = {name: number for number, name in enumerate(class_names)}
    if len(index) < len(class_names):
        raise InputError("class names repeat, so a name does not identify a class; prepare the model with unique names")
    return index


def _refuse_unknown(
    labels: IntArray, ids: Sequence[str], texts: Sequence[str], class_names: Sequence[str], unknown: str, kind: str
) -> None:
    if unknown not in ("error", "incorrect"):
        raise InputError(f"unknown={unknown!r} is not possible; choose 'error' or 'incorrect'")
    rows = np.flatnonzero(labels == UNKNOWN)
    if unknown == "incorrect" or not len(rows):
        return
    names = sorted({texts[row] for row in rows.tolist()})
    raise InputError(
        f"{len(rows)} of {len(ids)} inputs have a {kind} that is not a class of the model: "
        f"{', '.join(map(repr, names[:5]))}{', …' if len(names) > 5 else ''} (such as {ids[int(rows[0])]!r}). "
        f"Classes are {', '.join(map(repr, class_names[:5]))}{', …' if len(class_names) > 5 else ''}. "
        "If these are unknown concepts, whose predictions are always wrong, pass `--unknown-labels incorrect`"
    )
