"""What a confidence says of the test rows, and its cache: .npz files without pickles."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradscore.files.writing import replacing
from tools.decisions.measured import FloatArray

ARRAYS = ("correct", "right", "known")


@dataclass(frozen=True, eq=False)
class Answers:
    """A confidence of each test row for each question, larger for more confident ones.

    Attributes
    ----------
    correct, right, known : float64 [T]
        Whether the prediction is right and the input known; whether it is right, if the input is known; whether the input is
        known. A detector has one number for all three.
    about : mapping
        Seconds of processor time, and what there is to say of a fit.
    """

    correct: FloatArray
    right: FloatArray
    known: FloatArray
    about: dict[str, Any]

    @classmethod
    def single(cls, confidence: FloatArray, **about: Any) -> "Answers":
        """Return the answers of one number for all questions; where it is not a number, it counts as the least."""
        missing = np.isnan(confidence)
        least = float(np.min(confidence, where=~missing, initial=np.inf)) - 1.0
        filled = np.where(missing, least, confidence)
        return cls(filled, filled, filled, {**about, "not_a_number": int(missing.sum())})


def kept(path: Path, compute: Callable[[], Answers]) -> Answers:
    """Return the answers in a file; compute and write them if it is not there."""
    if not path.exists():
        answers = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(answers, name) for name in ARRAYS}
        with replacing(path, overwrite=True) as part, part.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(answers.about)), **arrays)
    with np.load(path, allow_pickle=False) as file:
        return Answers(*(file[name] for name in ARRAYS), json.loads(str(file["about"])))
