"""Figures 1 and 2: pictures as the CNN sees them, and distributions of two features."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from gradscore.comparing.cases import Cases
from gradscore.files.writing import replacing
from gradscore.report.style import ROLES, SERIES
from tools.paper.splits import Part, Repetition

EXAMPLES = 10
BINS = 60
SHOWN = {"entropy": "log₁₀ of the entropy", "all.l2": "log₁₀ of the gradient's L2 norm, all layers"}


def pictures(repetition: Repetition, path: Path) -> None:
    """Draw one row of pictures per concept, exactly as the CNN gets them: 255 is light."""
    rows = {"known": _ordered(repetition.test), **repetition.unknown}
    figure = Figure(figsize=(0.62 * EXAMPLES + 1.5, 0.62 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), EXAMPLES)
    for line, (name, part) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, part.images[:EXAMPLES], strict=True):
            axis.imshow(image[0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_axis_off()
        line[0].text(-0.2, 0.5, name, ha="right", va="center", transform=line[0].transAxes, fontsize=9)
    _save(figure, path)


def distributions(test: Cases, path: Path) -> None:
    """Draw densities of entropy and gradient norm for right and wrong predictions and each unknown concept."""
    groups = {"correct": test.correct, "incorrect": (test.group == 0) & ~test.correct}
    groups |= {name: test.group == 1 + index for index, name in enumerate(test.group_names[1:])}
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    for axis, (feature, title) in zip(figure.subplots(1, len(SHOWN)), SHOWN.items(), strict=True):
        values = np.log10(np.maximum(test.features[:, test.table.feature_names.index(feature)], 1e-12))
        edges = np.linspace(*np.quantile(values, [0.001, 1.0]), BINS)
        for role, (name, rows) in zip(_roles(len(groups)), groups.items(), strict=True):
            axis.hist(
                values[rows], edges, density=True, histtype="step", label=name, color=ROLES[role][0], linewidth=1.5
            )
        axis.set_xlabel(title)
        axis.set_yticks([])
        axis.spines[["left", "right", "top"]].set_visible(False)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", frameon=False)
    _save(figure, path)


def _ordered(part: Part) -> Part:
    """Return the first picture of each class."""
    firsts = [int(np.argmax(part.labels == label)) for label in np.unique(part.labels)]
    return Part(part.ids, part.images[firsts], part.labels[firsts])


def _roles(count: int) -> Sequence[str]:
    return [SERIES[index % len(SERIES)] for index in range(count)]


def _save(figure: Figure, path: Path) -> None:
    with replacing(path, overwrite=True) as part:
        figure.savefig(part, format="png", dpi=130, metadata={"Software": None})
