"""Chart of the measured times, with one panel per model and one bar per way."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from gradscore.bench.candidates import EIGHT
from gradscore.bench.scoring import ScoringRow
from gradscore.bench.workloads import BENCHMARK_MODELS
from gradscore.errors import GradscoreError, InputError
from gradscore.files.writing import replacing

OWN, OTHER, PARTIAL = "#1f6f8b", "#c7ccd1", "#e6e8ea"
CHART_ENDINGS = (".png", ".svg")


def save_chart(rows: Sequence[ScoringRow], path: Path) -> None:
    """Draw µs per input on a logarithmic axis.

    Ways that give fewer than all statistics are paler.

    Raises
    ------
    InputError
        The file name does not end in .png or .svg.
    GradscoreError
        matplotlib is not installed.
    """
    check_chart(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    models = list(dict.fromkeys(row.model for row in rows if row.timing))
    figure = Figure(figsize=(9, 0.7 + 2.3 * ((len(models) + 1) // 2)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots((len(models) + 1) // 2, 2, squeeze=False).ravel()
    for panel, model in zip(panels, models, strict=False):
        timed = [row for row in rows if row.model == model and row.microseconds]
        times = [row.microseconds or 0.0 for row in timed]
        colours = [OWN if row.candidate == "gradscore" else OTHER if row.gives == EIGHT else PARTIAL for row in timed]
        bars = panel.barh([row.candidate for row in timed], times, color=colours)
        panel.bar_label(bars, [f"{time:,.0f}" for time in times], padding=3, fontsize=7)
        panel.set_xscale("log")
        panel.set_xlim(right=max(times) * 4)
        panel.invert_yaxis()
        panel.tick_params(labelsize=7)
        panel.set_xlabel("µs per input", fontsize=7)
        panel.set_title(f"{BENCHMARK_MODELS[model].title}, batch {timed[0].batch}", fontsize=9, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(models) :]:
        panel.remove()
    with replacing(path, overwrite=True) as part:
        figure.savefig(
            part, format=path.suffix[1:], dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None
        )


def check_chart(path: Path) -> None:
    """Refuse a chart that cannot be written. Call this before the measurement.

    Raises
    ------
    InputError
        The file name does not end in .png or .svg.
    GradscoreError
        matplotlib is not installed.
    """
    if path.suffix not in CHART_ENDINGS:
        raise InputError(f"--chart {path}: the file name must end in {' or '.join(CHART_ENDINGS)}")
    try:
        import_module("matplotlib")
    except ImportError as error:
        raise GradscoreError('--chart needs matplotlib: pip install "gradscore[report]"') from error
