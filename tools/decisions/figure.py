"""The figure: every confidence of each task, on both questions."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gradscore.detectors import DETECTORS
from gradscore.files.writing import replacing
from gradscore.report.style import colour, drawing
from tools.decisions.confidences import SUM
from tools.decisions.results import BEST, DEFAULT, SOFTMAX, Results

PANELS = {
    "all": "right predictions against everything else",
    "wrong": "right against wrong predictions of known inputs",
}
MARKS: dict[str, dict[str, Any]] = {
    SOFTMAX: {"marker": "s", "color": colour("series-5"), "label": "maximum softmax"},
    SUM: {"marker": "^", "color": colour("series-3"), "label": "sum of all detectors"},
    BEST: {"marker": "o", "color": colour("series-2"), "label": "best single detector on all"},
    DEFAULT: {"marker": "D", "color": colour("series-1"), "label": "default verdict"},
}
SHIFT = 0.14  # of marks of different kinds, so that none hides another


def draw(results: Results, path: Path) -> None:
    """Draw AUROC (means over seeds) for each task: all detectors as ticks, four confidences as marks."""
    tasks = list(results.by_task)
    with drawing():
        figure = Figure(figsize=(8.6, 0.9 + 0.62 * len(tasks)), layout="constrained")
        for axis, (measure, title) in zip(figure.subplots(1, 2, sharey=True), PANELS.items(), strict=True):
            _panel(axis, results, tasks, measure)
            axis.set(title=title, xlabel="AUROC, %")
        axis.set_yticks(range(len(tasks)), tasks)
        axis.invert_yaxis()
        figure.legend(
            *axis.get_legend_handles_labels(), loc="outside lower center", ncols=5, columnspacing=1.0, handletextpad=0.3
        )
        with replacing(path, overwrite=True) as part:
            figure.savefig(part, format="png", dpi=150, metadata={"Software": None})


def _panel(axis: Any, results: Results, tasks: list[str], measure: str) -> None:
    def points(name: str) -> list[tuple[float, int]]:
        means = [(results.mean(name, task, measure), line) for line, task in enumerate(tasks)]
        return [(one.mean, line) for one, line in means if one is not None]

    ticks = [point for name in DETECTORS for point in points(name)]
    axis.scatter(
        *zip(*ticks, strict=True), marker="|", s=60, color=colour("muted"), alpha=0.5, label="single detectors"
    )
    for place, (name, look) in enumerate(MARKS.items()):
        values, lines = zip(*points(name), strict=True)
        shifted = [line + SHIFT * (place - 1.5) for line in lines]
        axis.scatter(values, shifted, s=34, zorder=3, edgecolors="white", linewidths=0.5, **look)
