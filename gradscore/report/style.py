"""Style of the figures, with colours by role.

The colours are hexadecimal in a PNG and CSS variables in a page, so that the page has a dark mode.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

# Light and dark colour of each role. The series follow Okabe and Ito, whose colours colour-blind readers can distinguish.
ROLES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "text": ("#1b1f24", "#e8eaed"),
        "muted": ("#5f6771", "#a3abb5"),
        "grid": ("#d9dde2", "#3a4048"),
        "series-1": ("#0072b2", "#56a8e0"),
        "series-2": ("#d55e00", "#ff8a45"),
        "series-3": ("#009e73", "#2fcfa2"),
        "series-4": ("#cc79a7", "#eba3cb"),
        "series-5": ("#b8860b", "#f0c04a"),
        "series-6": ("#5d4fb3", "#a99cf5"),
        "series-7": ("#767676", "#b5b5b5"),
        "series-8": ("#8c4a2f", "#d09a7e"),
    }
)
WIDTH = 4.4  # inches of a figure, so that letters are readable at 400 pixels
SERIES = tuple(role for role in ROLES if role.startswith("series-"))
DASHES: Sequence[Any] = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))

_RC: Any = {
    "axes.edgecolor": ROLES["muted"][0],
    "axes.grid": True,
    "axes.labelcolor": ROLES["text"][0],
    "axes.labelsize": 9.0,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9.0,
    "axes.titlecolor": ROLES["text"][0],
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "grid.color": ROLES["grid"][0],
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "legend.labelcolor": ROLES["text"][0],
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "text.color": ROLES["text"][0],
    "text.parse_math": False,
    "xtick.color": ROLES["muted"][0],
    "xtick.labelcolor": ROLES["text"][0],
    "ytick.color": ROLES["muted"][0],
    "ytick.labelcolor": ROLES["text"][0],
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
}


@dataclass(frozen=True)
class Drawn:
    """A figure with its title, its caption, and a text for readers who cannot see it."""

    title: str
    caption: str
    figure: Figure
    alt: str


def colour(role: str) -> str:
    """Return the colour of a role that figures are drawn with."""
    return ROLES[role][0]


def series(index: int) -> str:
    """Return the colour of the index-th series."""
    return colour(SERIES[index % len(SERIES)])


def dashes(index: int) -> Any:
    """Return the line style of the index-th series, which keeps a print in grey readable."""
    return DASHES[index % len(DASHES)]


def drawing() -> Any:
    """Return the matplotlib context in which figures are drawn."""
    return rc_context(_RC)


def to_png(figure: Figure) -> bytes:
    """Render a figure as PNG at 200 dots per inch on white."""
    buffer = io.BytesIO()
    with drawing():
        figure.savefig(buffer, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def to_svg(figure: Figure, name: str) -> str:
    """Render a figure as SVG for a page.

    It is transparent, has CSS variables as colours, and ids that are unique in the page.
    """
    buffer = io.StringIO()
    with drawing(), rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg
    )  # a hundredth of a point is enough
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for role, (light, _) in ROLES.items():
        svg = re.sub(light, f"var(--{role})", svg, flags=re.IGNORECASE)
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower())
    svg = re.sub(r'(?<![\w-])id="([^"]+)"', rf'id="{prefix}--\1"', svg)
    svg = re.sub(r'(href="|url\()#([^")]+)', rf"\1#{prefix}--\2", svg)
    return re.sub(
        r'<svg([^>]*?) width="[^"]*"',
        r"<svg\1",
        re.sub(r'<svg([^>]*?) height="[^"]*"', r"<svg\1", svg, count=1),
        count=1,
    )
