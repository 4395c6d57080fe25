"""Figures of single features: violins, and the heat map of layers and statistics."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gradscore.model.metadata import LAYER_STATISTICS
from gradscore.report.content import Content
from gradscore.report.scales import Scale
from gradscore.report.style import WIDTH, Drawn, series

FloatArray = NDArray[np.float64]

BINS = 48  # bins of a violin
MOST_ROWS = 30  # rows of the heat map
LONGEST = 34  # letters of a layer's name beside the heat map
LONGEST_TITLE = 18  # letters of a panel's title
HEAD = "softmax and logits"  # the features without a layer


def heat_map(content: Content) -> Drawn:
    """Draw a heat map of single-feature AUROC: the strongest layers by statistics, in either direction."""
    layers, every = _shown_layers(content), len(layer_names(content))
    values = np.array([[strength(content, f"{layer}.{name}") for name in LAYER_STATISTICS] for layer in layers])
    labels = [_short(name, LONGEST) for name in layers]
    figure = Figure(figsize=(3.6 + 0.06 * max(map(len, labels)), 1.0 + 0.24 * len(layers)))
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="cividis", vmin=0.5, vmax=1.0, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        shade = "#ffffff" if value < 0.75 else "#111111"
        axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=shade)
    axes.set(yticks=range(len(layers)), yticklabels=labels, xticks=range(len(LAYER_STATISTICS)))
    axes.set_xticklabels(list(LAYER_STATISTICS), rotation=40, ha="right", rotation_mode="anchor")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, location="top", shrink=0.6, aspect=30)
    bar.outline.set_visible(False)
    only = f" Only the {len(layers)} strongest of {every} layers are shown." if len(layers) < every else ""
    return Drawn(
        "Which layers and statistics separate best",
        f"AUROC of every single feature in percent, in the direction that separates better. 50 is guessing.{only}",
        figure,
        "Heat map of single-feature AUROC, layers by statistics",
    )


def strongest(content: Content) -> Drawn:
    """Draw violins of the eight features that separate best."""
    best = sorted(content.separation, key=lambda name: -strength(content, name))[:8]
    return Drawn(
        "The strongest single features",
        "Distribution for correct predictions, incorrect ones and each group of unknown inputs, on a logarithmic axis "
        f"if values span decades. A dot is the median, a bar the interquartile range. In order: {', '.join(best)}.",
        violins(content, {name: _short(name, LONGEST_TITLE) for name in best}),
        f"Violin plots of {', '.join(best)}",
    )


def layer(content: Content, name: str) -> Drawn:
    """Draw violins of one layer's eight statistics. The features of the head count as one layer."""
    return Drawn(
        name,
        "Distribution of each statistic. A dot is the median, a bar the interquartile range.",
        violins(content, {feature: feature.rpartition(".")[2] for feature in _features_of(content, name)}),
        f"Violin plots of {name}",
    )


def by_strength(content: Content) -> list[str]:
    """Return the layers and the head, sorted by their best feature, strongest first."""
    layers = [*layer_names(content), HEAD]
    return sorted(layers, key=lambda name: -max(strength(content, feature) for feature in _features_of(content, name)))


def layer_names(content: Content) -> list[str]:
    """Return the layers in graph order, "all" last: those with all eight statistics."""
    layers = dict.fromkeys(name.rpartition(".")[0] for name in content.separation if "." in name)
    return [name for name in layers if all(f"{name}.{one}" in content.separation for one in LAYER_STATISTICS)]


def strength(content: Content, feature: str) -> float:
    """Return the AUROC of a feature in the direction that separates better."""
    return 0.5 + abs(content.separation[feature] - 0.5)


def violins(content: Content, features: Mapping[str, str]) -> Figure:
    """Draw one small panel per feature, with its title, two panels in a row."""
    sides, names = content.sides(), content.cases.table.feature_names
    rows = -(-len(features) // 2)
    figure = Figure(figsize=(WIDTH, rows * (0.62 + 0.24 * len(sides))))
    panels = figure.subplots(rows, 2, squeeze=False, sharey=True).ravel()
    for axes, (feature, title) in zip(panels, features.items(), strict=False):
        values = content.cases.features[:, names.index(feature)]
        scale = Scale.of(values)
        grid = np.linspace(scale.low, scale.high, BINS + 1)
        for index, (name, chosen) in enumerate(sides):
            violin(axes, scale(values[chosen]), grid, place=index, shade=series(index), label=name)
        axes.set(xlim=(scale.low, scale.high), ylim=(len(sides) - 0.4, -0.6))
        axes.set(yticks=range(len(sides)), yticklabels=[name for name, _ in sides])
        axes.set_xticks(*scale.ticks())
        axes.set_title(f"{title} · {strength(content, feature):.2f}", loc="left")
        axes.grid(visible=False, axis="y")
    for axes in panels[len(features) :]:
        axes.set_visible(False)
    return figure


def violin(axes: Axes, values: FloatArray, grid: FloatArray, *, place: int, shade: str, label: str) -> None:
    """Draw a violin at one place of the y axis: smoothed histogram, median and interquartile range."""
    count, _ = np.histogram(np.clip(values, grid[0], grid[-1]), bins=grid)
    offsets = np.arange(-4, 5)
    smooth = np.convolve(count, np.exp(-(offsets**2) / 4.5), mode="same")
    half = 0.42 * smooth / smooth.max()
    centres = (grid[1:] + grid[:-1]) / 2
    seen = half > 0.004  # thinner tails would look like lines
    drawn = slice(int(np.argmax(seen)), len(seen) - int(np.argmax(seen[::-1])))
    axes.fill_between(centres[drawn], place - half[drawn], place + half[drawn], color=shade, alpha=0.45, linewidth=0)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    axes.plot([low, high], [place, place], color=shade, linewidth=2.2, solid_capstyle="butt")
    axes.plot([middle], [place], "o", color=shade, markersize=4, label=label)


def _shown_layers(content: Content) -> list[str]:
    """Return the strongest layers in graph order."""
    shown = [name for name in by_strength(content) if name != HEAD][:MOST_ROWS]
    return [name for name in layer_names(content) if name in shown]


def _features_of(content: Content, layer_name: str) -> list[str]:
    if layer_name == HEAD:
        return [feature for feature in content.separation if "." not in feature]
    return [f"{layer_name}.{statistic}" for statistic in LAYER_STATISTICS]


def _short(name: str, longest: int) -> str:
    """Return the name, or its end if the name is too long."""
    return name if len(name) <= longest else f"…{name[1 - longest :]}"
