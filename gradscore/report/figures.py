"""Figures of the report: functions from content to a matplotlib figure, listed in `FIGURES`."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gradscore.metrics.ranking import Ranking
from gradscore.report.content import Content
from gradscore.report.feature_figures import BINS, heat_map, strongest, violin
from gradscore.report.style import WIDTH, Drawn, colour, dashes, series

FloatArray = NDArray[np.float64]

MOST_POINTS = 400  # points of a curve; more would not be visible


def groups(content: Content) -> Drawn:
    """Draw the AUROC of each confidence, pooled and per group, with intervals."""
    names = list(next(iter(content.comparison.values())).groups)
    figure, axes = _square(height=1.4 + 0.42 * len(names))
    step = 0.7 / len(content.comparison)
    for index, name in enumerate(content.order()):
        result = content.comparison[name]
        for row, one in enumerate([result.pooled, *(result.groups[name] for name in names)]):
            place = row + step * (index - (len(content.comparison) - 1) / 2)
            if "auroc" in one.intervals:
                axes.plot(one.intervals["auroc"], [place, place], color=series(index), linewidth=1.4, alpha=0.7)
            label = name if row == 0 else None
            axes.plot([one.auroc], [place], "osD^vP"[index % 6], color=series(index), markersize=4.5, label=label)
    axes.set(yticks=range(len(names) + 1), yticklabels=["all", *names], xlabel="AUROC", ylim=(len(names) + 0.6, -0.6))
    axes.set_xlim(right=1.005)
    axes.grid(visible=False, axis="y")
    _legend_above(figure, axes)
    interval = "Bars are 95 % bootstrap intervals. " if content.resamples else ""
    caption = (
        f"Probability that a correct prediction has more confidence than an incorrect one, over all incorrect ones and "
        f"over those of each group. {interval}½ is guessing, 1 is perfect."
    )
    best = max(content.comparison.items(), key=lambda item: item[1].pooled.auroc)
    return Drawn(
        "Which confidence separates right from wrong", caption, figure, f"Best: {best[0]}, {best[1].pooled.auroc:.3f}"
    )


def roc(content: Content) -> Drawn:
    """Draw the ROC curves, with correct predictions as positives."""
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color=colour("muted"), linewidth=0.8)
    for index, name in enumerate(content.order()):
        ranking = content.ranking(name)
        _curve(axes, np.r_[0, ranking.fallout()], np.r_[0, ranking.recall()], name, index)
    axes.set(xlabel="incorrect predictions accepted", ylabel="correct predictions accepted")
    _unit_square(axes)
    _legend_above(figure, axes)
    return Drawn(
        "ROC curve",
        "Each point is a threshold: the fraction of correct and of incorrect predictions whose confidence reaches it.",
        figure,
        "Receiver operating characteristic of each confidence",
    )


def precision_recall(content: Content) -> Drawn:
    """Draw the precision–recall curves, with correct predictions as positives."""
    figure, axes = _square()
    for index, name in enumerate(content.order()):
        ranking = content.ranking(name)
        _curve(axes, ranking.recall(), ranking.precision(), name, index)
    share = float(content.cases.correct.mean())
    axes.axhline(share, color=colour("muted"), linewidth=0.8)
    axes.set(xlabel="correct predictions accepted (recall)", ylabel="accepted predictions that are correct (precision)")
    axes.set(xlim=(0, 1), ylim=(max(0, share - 0.1), 1.005))
    _legend_above(figure, axes)
    return Drawn(
        "Precision and recall",
        f"Fraction of the accepted predictions that is correct. The thin line, {share:.1%}, is that of all predictions.",
        figure,
        "Precision against recall of each confidence",
    )


def risk_coverage(content: Content) -> Drawn:
    """Draw the risk–coverage curves of selective prediction."""
    figure, axes = _square()
    for index, name in enumerate(content.order()):
        coverage, risk = _risk(content.ranking(name))
        _curve(axes, coverage, risk, name, index)
    axes.set(xlabel="coverage: fraction of predictions accepted", ylabel="risk: fraction of these that is wrong")
    axes.set(xlim=(0, 1), ylim=(0, None))
    _legend_above(figure, axes)
    return Drawn(
        "Risk and coverage",
        "Fraction of wrong predictions if only the most confident ones are accepted. Lower is better.",
        figure,
        "Risk against coverage of each confidence",
    )


def reliability(content: Content) -> Drawn:
    """Draw the reliability diagram of each probability."""
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color=colour("muted"), linewidth=0.8)
    for index, name in enumerate(content.order()):
        if name not in content.probabilities:
            continue
        mean, share, count = content.reliability(name)
        size = 6 + 90 * np.sqrt(count / len(content.cases))
        axes.plot(mean, share, color=series(index), linestyle=dashes(index), linewidth=1.2, label=name)
        axes.scatter(mean, share, s=size, color=series(index), alpha=0.8, linewidth=0)
    axes.set(xlabel="stated probability of being correct", ylabel="fraction that is correct")
    _unit_square(axes)
    _legend_above(figure, axes)
    return Drawn(
        "Reliability",
        "Predictions in 15 bins of stated probability. On the diagonal, the probability is calibrated. Below it, it is "
        "overconfident. A larger dot stands for more predictions.",
        figure,
        "Reliability diagram of each probability",
    )


def p_correct(content: Content) -> Drawn:
    """Draw the distribution of P(correct) for correct, incorrect and unknown inputs."""
    sides = content.sides()
    figure, axes = _square(height=0.9 + 0.5 * len(sides))
    grid = np.linspace(0, 1, BINS + 1)
    for index, (name, rows) in enumerate(sides):
        violin(axes, content.p[rows], grid, place=index, shade=series(index), label=name)
    axes.set(xlim=(0, 1), xlabel=f"P(correct) by {content.chosen}", ylim=(len(sides) - 0.4, -0.6))
    axes.set(yticks=range(len(sides)), yticklabels=[name for name, _ in sides])
    axes.grid(visible=False, axis="y")
    if content.threshold is not None:
        axes.axvline(content.threshold, color=colour("text"), linewidth=1, linestyle=(0, (4, 2)))
    line = " Predictions to the right of the dashed line are accepted." if content.threshold is not None else ""
    return Drawn(
        "P(correct) of each group",
        f"Distribution of the probability. A dot is the median, a bar the interquartile range.{line}",
        figure,
        "Distribution of P(correct) for correct, incorrect and unknown inputs",
    )


FIGURES: Mapping[str, Callable[[Content], Drawn]] = MappingProxyType(
    {
        "auroc": groups,
        "p-correct": p_correct,
        "roc": roc,
        "precision-recall": precision_recall,
        "risk-coverage": risk_coverage,
        "reliability": reliability,
        "layers": heat_map,
        "features": strongest,
    }
)


def _curve(axes: Axes, x: FloatArray, y: FloatArray, name: str, index: int) -> None:
    kept = np.unique(np.linspace(0, len(x) - 1, MOST_POINTS).astype(np.int64)) if len(x) > MOST_POINTS else slice(None)
    axes.plot(x[kept], y[kept], color=series(index), linestyle=dashes(index), label=name)


def _risk(ranking: Ranking) -> tuple[FloatArray, FloatArray]:
    accepted = np.cumsum(ranking.positives + ranking.negatives)
    return np.asarray(accepted / accepted[-1]), np.asarray(np.cumsum(ranking.negatives) / accepted)


def _square(height: float = 3.9) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height))
    return figure, figure.add_subplot()


def _unit_square(axes: Axes) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.005))


def _legend_above(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(3, len(labels)), handlelength=2.6)
