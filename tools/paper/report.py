"""The whole study, from the data to the written tables and figures."""

import importlib.metadata
import json
import platform
import time
from pathlib import Path
from typing import Any

from gradscore import InputError
from gradscore.files.writing import replacing
from tools.paper import concepts as pictures
from tools.paper import figures, scores, study, training
from tools.paper.account import account
from tools.paper.again import sections
from tools.paper.concepts import Concepts
from tools.paper.measures import tested
from tools.paper.results import Results
from tools.paper.splits import Repetition
from tools.paper.tables import comma_separated
from tools.paper.training import Training

DISTRIBUTIONS = ("gradscore", "numpy", "onnxruntime", "scikit-learn", "torch")
BRIEF = Training(batch=64, first_rate=0.03, most_epochs=6)  # with few pictures, an epoch has few steps


def reproduce(
    data_dir: Path | None, output: Path, *, cnns: int, networks: int, miniature: bool, cache: Path, jobs: int
) -> dict[str, Any]:
    """Run the study and write its tables, results and figures. Return the content of results.json.

    The files are tables.md, tables.csv, results.json, figure-1.png and figure-2.png.

    Raises
    ------
    InputError
        `cnns`, `networks` or `jobs` is less than 1, or the folder holds no digits.
    """
    if min(cnns, networks, jobs) < 1:
        raise InputError("--cnns, --networks and --jobs must be 1 or more")
    start = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    concepts = pictures.read(data_dir, miniature=miniature)
    how = BRIEF if miniature or data_dir is None else Training()
    outcome = study.run(concepts, cnns=cnns, networks=networks, how=how, cache=cache, jobs=jobs)
    results = Results([result for one in outcome for result in one.results], study.every_known_unknown(concepts))
    _draw(concepts, how, cache, output)
    accuracy = [one.accuracy for one in outcome]
    seconds = {
        "training": sum(one.training_seconds for one in outcome),
        "scoring": sum(one.scoring_seconds for one in outcome),
        "fitting and measuring": sum(
            result.seconds for one in outcome for result in one.results if result.network == 0
        ),
    }
    whole = {
        "summary": {
            **results.summary,
            "verdict": dict(zip(("table", "row", "fitted_on"), results.chosen, strict=True)),
        },
        "known": concepts.known,
        "sizes": vars(concepts.sizes),
        "training": vars(how),
        "seeds": [one.seed for one in outcome],
        "test_accuracy": accuracy,
        "versions": {name: importlib.metadata.version(name) for name in DISTRIBUTIONS}
        | {"python": platform.python_version()},
        "seconds": {**seconds, "this run, with what was cached": time.perf_counter() - start},
        "rows": results.as_dict(),
    }
    text = [*account(results, concepts, accuracy, seconds), *sections(results, concepts.known)]
    _write(output / "tables.md", "\n".join(text).rstrip() + "\n")
    _write(output / "tables.csv", comma_separated(results))
    _write(output / "results.json", json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    return whole


def _draw(concepts: Concepts, how: Training, cache: Path, output: Path) -> None:
    repetition = Repetition.draw(concepts, 0)
    figures.pictures(repetition, output / "figure-1.png")
    cnn = training.trained(repetition, how, cache)
    figures.distributions(tested(scores.scored(repetition, cnn.model, cnn.folder)), output / "figure-2.png")


def _write(path: Path, text: str) -> None:
    with replacing(path, overwrite=True) as part:
        part.write_text(text, encoding="utf-8")
