"""Everything that the benchmark writes: decisions.md, decisions.png and results.json."""

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradscore.files.writing import replacing
from tools.decisions import account, figure, reasons, tables
from tools.decisions.goals import Goal, goals
from tools.decisions.results import Results

DISTRIBUTIONS = ("gradscore", "numpy", "onnxruntime", "scikit-learn", "torch")
RESULTS, TEXT, FIGURE = "results.json", "decisions.md", "decisions.png"
Wanted = Sequence[tuple[str, int]]


def write(results: Results, ratios: Mapping[str, float], wanted: Wanted, output: Path, seconds: float) -> list[Goal]:
    """Write all three files, and return the lines that were to be reached."""
    output.mkdir(parents=True, exist_ok=True)
    lines = goals(results, ratios)
    whole = {
        "goals": [one.as_dict() for one in lines],
        "best_single_detector": dict(results.best),
        "wanted": [list(one) for one in wanted],
        "scoring_time_ratios": {task: round(ratio, 4) for task, ratio in ratios.items()},
        "versions": {name: importlib.metadata.version(name) for name in DISTRIBUTIONS}
        | {"python": platform.python_version()},
        "seconds_of_this_run": round(seconds, 1),
        "repetitions": results.as_list(),
    }
    _write(output / RESULTS, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    render(whole, output)
    return lines


def render(whole: Mapping[str, Any], output: Path) -> None:
    """Write text and figure from the content of results.json."""
    results, wanted = Results.of(whole["repetitions"]), [(task, seed) for task, seed in whole["wanted"]]
    lines = goals(results, whole["scoring_time_ratios"])
    _write(output / TEXT, "\n".join(_text(results, lines, wanted, whole)).rstrip() + "\n")
    figure.draw(results, output / FIGURE)


def _text(results: Results, lines: Sequence[Goal], wanted: Wanted, whole: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in whole["versions"].items())
    return [
        "# What decisions are worth",
        "",
        "Written by `python -m tools.benchmark_decisions`; every figure, also of single seeds and groups, is in `results.json`.",
        "",
        *account.protocol(results),
        *account.lacking(wanted, results),
        "## What was to be reached",
        "",
        *account.missed(lines),
        *tables.marks(lines),
        "## Where the default wins, ties and loses",
        "",
        f"A difference of at most {account.TIE} points is a tie. Near, far and noise: right predictions against these groups alone.",
        "",
        *account.outcome(results),
        *reasons.reasons(results),
        *tables.gains(results),
        "## Every confidence",
        "",
        "AUROC on both questions; the best of a column is bold.",
        "",
        *tables.main_table(results),
        "## Other protocols",
        "",
        "Means over the tasks. FPR95 and AURC: the smaller, the better.",
        "",
        *tables.others(results),
        "## Group by group",
        "",
        "AUROC of right predictions against each unknown group. Groups that a synthetic kind makes too are *seen*, and not in `all`.",
        "",
        *tables.groups(results),
        "## Calibration",
        "",
        "ECE on known test inputs in points; in brackets the ECE that perfect probabilities would have on as many rows, which is not 0.",
        "",
        *tables.calibration(results),
        "## Tasks",
        "",
        *tables.material(results),
        "## Fits",
        "",
        "Seconds of processor time, on one thread. Where `auto` chose a recipe, that recipe has the same fit and time.",
        "",
        *tables.fits(results),
        f"Versions: {versions}.",
    ]


def _write(path: Path, text: str) -> None:
    with replacing(path, overwrite=True) as part:
        part.write_text(text, encoding="utf-8")
