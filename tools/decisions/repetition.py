"""One task and seed: all answers, from the cache or computed, and their measures."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradscore.verdict import AUTO
from tools.decisions.answers import Answers, kept
from tools.decisions.confidences import CONFIDENCES, VERDICTS
from tools.decisions.measured import Measured
from tools.decisions.measures import calibration, measures

_CODE = {name: b"".join(path.read_bytes() for path in one.sources) for name, one in CONFIDENCES.items()}
"""The code of each confidence as it was when this program started, which is what it runs."""


@dataclass(frozen=True)
class Repetition:
    """The measures of one task and seed.

    Attributes
    ----------
    about : mapping
        What the scored rows say of themselves, rows of each group, the ECE of the softmax itself.
    measures : mapping
        By confidence and measure.
    fits : mapping
        Of each confidence: seconds of processor time, and for verdicts the method chosen and notes.
    """

    about: dict[str, Any]
    measures: dict[str, dict[str, Any]]
    fits: dict[str, dict[str, Any]]

    @property
    def key(self) -> tuple[str, int]:
        """Task and seed."""
        return self.about["task"], self.about["seed"]


def repetition(file: Path, names: Sequence[str], cache: Path, *, only_cached: bool) -> Repetition:
    """Return the measures of these confidences on a file of scored rows; with `only_cached`, of those that are cached."""
    measured = Measured.read(file)
    found = answered(measured, file, names, cache, only_cached=only_cached)
    judged = {name: measures(measured, one, probabilities=name in VERDICTS) for name, one in found.items()}
    return Repetition(_about(measured), judged, {name: one.about for name, one in found.items()})


def answered(
    measured: Measured, file: Path, names: Sequence[str], cache: Path, *, only_cached: bool
) -> dict[str, Answers]:
    """Return the answers of these confidences by name, from the cache or computed."""
    found: dict[str, Answers] = {}
    with file.open("rb") as stream:
        rows = hashlib.file_digest(stream, "sha256")
    for name in names:
        path = _place(file, name, cache, rows.copy())
        if AUTO in found and name == found[AUTO].about["method"]:
            found[name] = found[AUTO]  # the recipe that auto has chosen, fitted to the same rows with the same seed
        elif path.exists() or not only_cached:
            found[name] = _said(measured, name, path)
    return found


def _place(file: Path, name: str, cache: Path, digest: Any) -> Path:
    """Return where answers are kept: the name changes with the scored rows and with the code that answers."""
    digest.update(_CODE[name])
    return cache / "answers" / f"{file.stem}-{name.replace(' ', '-')}-{digest.hexdigest()[:16]}.npz"


def _said(measured: Measured, name: str, path: Path) -> Answers:
    answers = kept(path, lambda: CONFIDENCES[name].answers(measured))
    if name in VERDICTS:
        print(f"  {name}: {answers.about['method']}, {answers.about['seconds']:.1f} s", flush=True)
    return answers


def _about(measured: Measured) -> dict[str, Any]:
    known = measured.family("known") & measured.test
    softmax = calibration(measured.columns("max_softmax")[known, 0], measured.correct[known], "softmax")
    rows = {name: int((measured.of(name) & measured.test).sum()) for name in measured.group_names}
    groups = {
        name: {"family": family, "test_rows": rows[name]}
        for name, family in zip(measured.group_names, measured.families, strict=True)
    }
    wrong = int((known & ~measured.correct).sum())
    return {**measured.about, **softmax, "groups": groups, "wrong_test_rows": wrong}
