"""What was to be reached: lines that were set before the benchmark ran, and the figures for them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tools.decisions.confidences import SUM
from tools.decisions.picture_task import PictureTask
from tools.decisions.results import BEST, SOFTMAX, Results
from tools.decisions.tasks import MINIATURE, TASKS

Figures = Mapping[str, float]
Over = Callable[[Figures], float]
PAPER = Path(__file__).parents[1] / "results/paper/results.json"


@dataclass(frozen=True)
class Goal:
    """One line: a figure for each task, what counts of them, and the two marks.

    Attributes
    ----------
    question
        What is asked.
    over
        "worst" or "mean" of the tasks.
    must, aim
        The marks; None where the line has none.
    figures
        The figure of each task, in points; for a ratio, as it is.
    least
        Whether smaller figures are better.
    """

    question: str
    over: str
    must: float | None
    aim: float | None
    figures: Figures
    least: bool = False

    @property
    def value(self) -> float | None:
        """What the marks are compared with."""
        if not self.figures:
            return None
        worst = max if self.least else min
        return fmean(self.figures.values()) if self.over == "mean" else worst(self.figures.values())

    def reached(self, mark: float | None) -> str:
        """Return "reached" or "missed", and a dash where there is nothing to say."""
        if mark is None or self.value is None:
            return "–"
        return "reached" if (self.value <= mark if self.least else self.value >= mark) else "missed"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        said = {"must_reached": self.reached(self.must), "aim_reached": self.reached(self.aim)}
        return {**vars(self), "figures": dict(self.figures), "value": self.value, **said}


def goals(results: Results, ratios: Figures) -> list[Goal]:
    """Return all lines; `ratios` are scoring times with what the default reads over those without it."""
    best, everything = (_gains(results, "all", over) for over in (BEST, SUM))
    softmax, right = _gains(results, "all", SOFTMAX), _gains(results, "wrong", SOFTMAX)
    product = _gains(results, "wrong_product", SOFTMAX, on="wrong")
    images = {task: gain for task, gain in softmax.items() if isinstance((TASKS | MINIATURE)[task], PictureTask)}
    found = {task: results.mean("auto", task, "ece_correct") for task in results.by_task}
    eces = {task: one.mean for task, one in found.items() if one is not None}
    return [
        Goal("`all`, against the best single detector of each task: worst task", "worst", -0.3, 2.0, best),
        Goal("`all`, against the best single detector of each task: mean", "mean", 1.0, None, best),
        Goal("`all`, against the sum of all detectors: worst task", "worst", -0.3, 2.0, everything),
        Goal("`all`, against the sum of all detectors: mean", "mean", 1.0, None, everything),
        Goal("`all`, against maximum softmax: mean of the tasks on pictures", "mean", 8.0, 15.0, images),
        Goal("`wrong`, P(right), against maximum softmax: worst task", "worst", -0.2, 0.5, right),
        Goal("`wrong`, P(correct), against maximum softmax: worst task", "worst", -1.5, -0.5, product),
        Goal("ECE of P(correct) on known test inputs: worst task", "worst", 2.0, 1.0, eces, least=True),
        *_paper(),
        Goal("scoring time with all that the default reads ÷ without", "worst", 1.15, 1.05, ratios, least=True),
    ]


def _gains(results: Results, measure: str, over: str, *, on: str | None = None) -> dict[str, float]:
    found = {task: results.gain(task, measure, over, on=on) for task in results.by_task}
    return {task: one.mean for task, one in found.items() if one is not None}


def _paper() -> Sequence[Goal]:
    """Return the lines of the study that retraces the paper, from its own results."""
    summary = json.loads(PAPER.read_text(encoding="utf-8"))["summary"]
    lines = (
        ("AUROC on `all`", "all_auroc_gain", 1.67, 2.0),
        ("AUPR-Out on `all`", "all_aupr_out_gain", 3.81, 4.2),
        ("AUROC on `correct/incorrect`", "correct_auroc_change", -0.12, 0.0),
    )
    return [
        Goal(
            f"the paper's study, {words}, against maximum softmax",
            "worst",
            must,
            aim,
            {"study": round(summary[key], 2)},
        )
        for words, key, must, aim in lines
    ]
