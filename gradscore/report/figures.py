"""The report's figures: each one function from content to a matplotlib figure, all listed in `FIGURES`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gradscore.metadata import LAYER_STATISTICS
from gradscore.ranking import Ranking
from gradscore.report.content import Content
from gradscore.report.scales import Scale
from gradscore.report.style import colour, dashes, series

FloatArray = NDArray[np.float64]

MOST_POINTS = 400  # of a curve; more cannot be seen
BINS = 48  # of a violin
WIDTH = 4.4  # inches: letters are read at 400 pixels


@dataclass(frozen=True)
class Drawn:
    """A figure with its caption: what it shows and how to read it."""

    title: str
    caption: str
    figure: Figure
    alt: str


def groups(content: Content) -> Drawn:
    """AUROC of each confidence, pooled and per group, with intervals."""
    names = ["all", *next(iter(content.comparison.values())).groups]
    figure, axes = _square(height=1.0 + 0.42 * len(names))
    step = 0.7 / len(content.comparison)
    for index, name in enumerate(content.order()):
        result = content.comparison[name]
        for row, group in enumerate(names):
            one = result.pooled if group == "all" else result.groups[group]
            place = row + step * (index - (len(content.comparison) - 1) / 2)
            if "auroc" in one.intervals:
                axes.plot(one.intervals["auroc"], [place, place], color=series(index), linewidth=1.4, alpha=0.7)
            label = name if row == 0 else None
            axes.plot([one.auroc], [place], "osD^vP"[index % 6], color=series(index), markersize=4.5, label=label)
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel="AUROC", ylim=(len(names) - 0.4, -0.6))
    axes.set_xlim(right=1.005)
    axes.grid(visible=False, axis="y")
    _legend_above(figure, axes)
    interval = "Bars are 95 % bootstrap intervals. " if content.resamples else ""
    caption = (
        f"Chance that a correct prediction gets more confidence than one that is not, for all of these and for those "
        f"of one group. {interval}½ is guessing, 1 is perfect."
    )
    best = max(content.comparison.items(), key=lambda item: item[1].pooled.auroc)
    return Drawn(
        "Which confidence tells right from wrong", caption, figure, f"Best: {best[0]}, {best[1].pooled.auroc:.3f}"
    )


def roc(content: Content) -> Drawn:
    """Receiver operating characteristic, correct predictions positive."""
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
        "Every threshold is a point: the share of correct and of incorrect predictions whose confidence reaches it.",
        figure,
        "Receiver operating characteristic of each confidence",
    )


def precision_recall(content: Content) -> Drawn:
    """Precision and recall, correct predictions positive."""
    figure, axes = _square()
    for index, name in enumerate(content.order()):
        ranking = content.ranking(name)
        _curve(axes, ranking.recall(), ranking.precision(), name, index)
    share = float(content.cases.correct.mean())
    axes.axhline(share, color=colour("muted"), linewidth=0.8)
    axes.set(xlabel="correct predictions accepted (recall)", ylabel="accepted ones that are correct (precision)")
    axes.set(xlim=(0, 1), ylim=(max(0, share - 0.1), 1.005))
    _legend_above(figure, axes)
    return Drawn(
        "Precision and recall",
        f"What share of the accepted predictions is correct. The thin line, {share:.1%}, accepts everything.",
        figure,
        "Precision against recall of each confidence",
    )


def risk_coverage(content: Content) -> Drawn:
    """Risk over coverage: selective prediction."""
    figure, axes = _square()
    for index, name in enumerate(content.order()):
        coverage, risk = _risk(content.ranking(name))
        _curve(axes, coverage, risk, name, index)
    axes.set(xlabel="coverage: share of predictions accepted", ylabel="risk: accepted ones that are wrong")
    axes.set(xlim=(0, 1), ylim=(0, None))
    _legend_above(figure, axes)
    return Drawn(
        "Risk and coverage",
        "Accept only the most confident predictions, and this share of them is wrong. Lower is better.",
        figure,
        "Risk against coverage of each confidence",
    )


def reliability(content: Content) -> Drawn:
    """Reliability diagram of each probability."""
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color=colour("muted"), linewidth=0.8)
    for index, name in enumerate(content.order()):
        if name not in content.probabilities:
            continue
        mean, share, count = content.reliability(name)
        size = 6 + 90 * np.sqrt(count / len(content.cases))
        axes.plot(mean, share, color=series(index), linestyle=dashes(index), linewidth=1.2, label=name)
        axes.scatter(mean, share, s=size, color=series(index), alpha=0.8, linewidth=0)
    axes.set(xlabel="stated probability of being correct", ylabel="share that is correct")
    _unit_square(axes)
    _legend_above(figure, axes)
    return Drawn(
        "Reliability",
        "Predictions in 15 bins of stated probability. On the diagonal the probability is true; below it, it promises "
        "too much. The larger a dot, the more predictions it stands for.",
        figure,
        "Reliability diagram of each probability",
    )


def p_correct(content: Content) -> Drawn:
    """Distribution of P(correct) of each side."""
    sides = content.sides()
    figure, axes = _square(height=0.9 + 0.5 * len(sides))
    grid = np.linspace(0, 1, BINS + 1)
    for index, (name, rows) in enumerate(sides.items()):
        _violin(axes, content.p[rows], grid, place=index, shade=series(index), label=name)
    axes.set(xlim=(0, 1), xlabel=f"P(correct) by {content.chosen}", ylim=(len(sides) - 0.4, -0.6))
    axes.set(yticks=range(len(sides)), yticklabels=list(sides))
    axes.grid(visible=False, axis="y")
    if content.threshold is not None:
        axes.axvline(content.threshold, color=colour("text"), linewidth=1, linestyle=(0, (4, 2)))
    line = " The dashed line is the threshold: accepted to its right." if content.threshold is not None else ""
    return Drawn(
        "P(correct) of each group",
        f"How the probability is spread. A dot is the median, a bar the middle half.{line}",
        figure,
        "Distribution of P(correct) for correct, incorrect and unknown inputs",
    )


def heat_map(content: Content) -> Drawn:
    """Single-feature AUROC of each layer and statistic, either direction."""
    layers = layer_names(content)
    values = np.array([[strength(content, f"{layer}.{name}") for name in LAYER_STATISTICS] for layer in layers])
    longest = max(map(len, layers))
    figure = Figure(figsize=(3.6 + 0.06 * longest, 1.0 + 0.24 * len(layers)))
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="cividis", vmin=0.5, vmax=1.0, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        shade = "#ffffff" if value < 0.75 else "#111111"
        axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=shade)
    axes.set(yticks=range(len(layers)), yticklabels=layers, xticks=range(len(LAYER_STATISTICS)))
    axes.set_xticklabels(list(LAYER_STATISTICS), rotation=40, ha="right", rotation_mode="anchor")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, location="top", shrink=0.6, aspect=30)
    bar.outline.set_visible(False)
    return Drawn(
        "Which layer and statistic knows",
        "AUROC of every single feature by itself, in percent, in whichever direction it points. 50 is guessing.",
        figure,
        "Heat map of single-feature AUROC, layers by statistics",
    )


def strongest(content: Content) -> Drawn:
    """Violins of the eight features that separate best."""
    best = sorted(content.separation, key=lambda name: -strength(content, name))[:8]
    return Drawn(
        "The strongest single features",
        "Distribution over correct predictions, incorrect ones and each group of unknown inputs, on a logarithmic axis "
        "where values span decades. A dot is the median, a bar the middle half.",
        violins(content, best),
        f"Violin plots of {', '.join(best)}",
    )


def layer(content: Content, name: str) -> Drawn:
    """Violins of one layer's eight statistics; the head's features make a layer of their own."""
    return Drawn(
        name,
        "Distribution of each statistic. A dot is the median, a bar the middle half.",
        violins(content, _features_of(content, name)),
        f"Violin plots of {name}",
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
HEAD = "softmax and entropy"


def layer_names(content: Content) -> list[str]:
    """Return the layers in graph order, "all" last."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in content.separation if "." in name))


def by_strength(content: Content) -> list[str]:
    """Return the layers and the head, the one whose best feature separates best first."""
    layers = [*layer_names(content), HEAD]
    return sorted(layers, key=lambda name: -max(strength(content, feature) for feature in _features_of(content, name)))


def strength(content: Content, feature: str) -> float:
    """Return a feature's AUROC in whichever direction it points."""
    return 0.5 + abs(content.separation[feature] - 0.5)


def _features_of(content: Content, layer_name: str) -> list[str]:
    if layer_name == HEAD:
        return [feature for feature in content.separation if "." not in feature]
    return [f"{layer_name}.{statistic}" for statistic in LAYER_STATISTICS]


def violins(content: Content, features: Sequence[str]) -> Figure:
    """Draw small panels, two a row, one a feature."""
    sides, names = content.sides(), content.cases.table.feature_names
    rows = -(-len(features) // 2)
    figure = Figure(figsize=(WIDTH, rows * (0.62 + 0.24 * len(sides))))
    panels = figure.subplots(rows, 2, squeeze=False, sharey=True).ravel()
    for axes, feature in zip(panels, features, strict=False):
        values = content.cases.features[:, names.index(feature)]
        scale = Scale.of(values)
        grid = np.linspace(scale.low, scale.high, BINS + 1)
        for index, (name, chosen) in enumerate(sides.items()):
            _violin(axes, scale(values[chosen]), grid, place=index, shade=series(index), label=name)
        places, labels = scale.ticks()
        axes.set(xlim=(scale.low, scale.high), ylim=(len(sides) - 0.4, -0.6))
        axes.set(yticks=range(len(sides)), yticklabels=list(sides))
        axes.set_xticks(places, labels)
        axes.set_title(f"{feature} · {strength(content, feature):.2f}", loc="left")
        axes.grid(visible=False, axis="y")
    for axes in panels[len(features) :]:
        axes.set_visible(False)
    return figure


def _violin(axes: Axes, values: FloatArray, grid: FloatArray, *, place: int, shade: str, label: str) -> None:
    count, _ = np.histogram(np.clip(values, grid[0], grid[-1]), bins=grid)
    offsets = np.arange(-4, 5)
    smooth = np.convolve(count, np.exp(-(offsets**2) / 4.5), mode="same")
    half = 0.42 * smooth / smooth.max()
    centres = (grid[1:] + grid[:-1]) / 2
    seen = half > 0.004  # tails thinner than that would be lines
    drawn = slice(int(np.argmax(seen)), len(seen) - int(np.argmax(seen[::-1])))
    axes.fill_between(centres[drawn], place - half[drawn], place + half[drawn], color=shade, alpha=0.45, linewidth=0)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    axes.plot([low, high], [place, place], color=shade, linewidth=2.2, solid_capstyle="butt")
    axes.plot([middle], [place], "o", color=shade, markersize=4, label=label)


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
