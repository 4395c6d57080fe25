"""What a verdict's features cost: scoring with everything that the default reads, and without, in turn."""

import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gradscore import Scorer
from gradscore.files.writing import replacing
from gradscore.unknowns.synthesis import kinds_for, make_unknowns
from tools.decisions.mails import LENGTH, WORDS
from tools.decisions.measured import Measured

ROWS = 512
TURNS = 15


def time_ratio(file: Path, cache: Path, *, only_cached: bool) -> float | None:
    """Return the time with over that without for the scoring model of some scored rows: the fastest turns of each."""
    model = cache / Measured.read(file).about["scoring_model"]
    kept = cache / "answers" / f"{file.stem}-time.json"
    if not kept.exists():
        if only_cached or not model.exists():
            return None
        kept.parent.mkdir(parents=True, exist_ok=True)
        seconds = _seconds(model)
        with replacing(kept, overwrite=True) as part:
            part.write_text(json.dumps(seconds), encoding="utf-8")
    without, with_all = json.loads(kept.read_text(encoding="utf-8"))
    return float(with_all / without)


def _seconds(model: Path) -> list[float]:
    """Return the fastest seconds without and with what the default reads."""
    with Scorer.load(model, threads=1) as plain, Scorer.load(model, threads=1, features=["recommended"]) as whole:
        rows = _inputs(plain)
        turns = [[_timed(scorer, rows) for scorer in (plain, whole)] for _ in range(TURNS + 1)]
    return np.min(turns[1:], axis=0).tolist()  # type: ignore[no-any-return]


def _inputs(scorer: Scorer) -> NDArray[np.generic]:
    """Return inputs of the model's form, without sense."""
    if "uniform" in kinds_for(scorer.metadata):
        return make_unknowns(scorer, "uniform", ROWS)
    return np.random.default_rng(0).integers(1, WORDS, (ROWS, LENGTH))


def _timed(scorer: Scorer, rows: NDArray[np.generic]) -> float:
    start = time.process_time()  # one thread: other programs on the machine do not count
    scorer.score(rows)
    return time.process_time() - start
