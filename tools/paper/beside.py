"""The paper's figures beside ours, cell by cell, and likely reasons where they differ."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tools.paper import reported
from tools.paper.averages import Averaged, Key, Mean
from tools.paper.rows import UNFITTED, VALIDATION
from tools.paper.tables import METRIC_NAMES

HEADING = "## The paper's figures beside ours"
NAMES = {1: "single numbers", 2: "linear meta-classifiers", 3: "neural meta-classifiers, by their fitting rows"}
THRESHOLDS = ("max softmax", "entropy")  # rows that tables 2 and 3 of the paper repeat; we have them in table 1
SPREADS = 2  # a difference is beyond the spread if it is larger than this many of our standard deviations
ROUNDING = 0.005  # the paper's figures have two decimals
DIGITS = "correct/incorrect"
NOISE = ("normal noise", "uniform noise")


@dataclass(frozen=True)
class Cell:
    """One figure of the paper, and ours, or None if we have no such pictures."""

    table: int
    row: str
    concept: str
    metric: str
    paper: float
    ours: Mean | None

    @property
    def difference(self) -> float:
        """Ours less the paper's, in points."""
        return self.ours.mean - self.paper if self.ours else 0.0

    @property
    def differs(self) -> bool:
        """Whether the difference is beyond the spread."""
        return self.ours is not None and abs(self.difference) > SPREADS * self.ours.std + ROUNDING

    def __str__(self) -> str:
        if self.ours is None:
            return f"{self.paper:.2f} → –"
        change = f"({_points(self.difference)})"
        return f"{self.paper:.2f} → {self.ours.mean:.2f} {f'**{change}**' if self.differs else change}"


@dataclass(frozen=True)
class Reason:
    """A likely reason why some cells differ."""

    where: str
    applies: Callable[[Cell], bool]
    text: str


REASONS = (
    Reason(
        "AUPR-Out on `correct/incorrect` in tables 1 and 2, all rows that have 95 in the paper",
        lambda cell: (cell.concept, cell.metric) == (DIGITS, "aupr_out") and cell.paper > 90,
        "Probably a misprint: maximum softmax has 39.96 at the same AUROC, and table 3 gives the entropy 35.83. 60 points less "
        "would fit table 3, and ours.",
    ),
    Reason(
        "AUPR-Out of maximum softmax for notMNIST",
        lambda cell: (cell.row, cell.concept, cell.metric) == ("max softmax", "notMNIST", "aupr_out"),
        "Probably a misprint, see below.",
    ),
    Reason(
        "GLM and ridge",
        lambda cell: cell.row in ("GLM", "ridge"),
        "In the paper these two are at or near chance on every concept, LASSO and elastic net are not. Here all four rank "
        "nearly alike. Presumably the two fits of the paper did not converge on raw features.",
    ),
    Reason(
        "Networks fitted on validation digits alone",
        lambda cell: cell.row == VALIDATION,
        "Such a network extrapolates to what it never saw, and every fit does so differently.",
    ),
    Reason(
        "Noise",
        lambda cell: cell.concept in NOISE,
        "MNIST for EMNIST: other digits, so other CNNs, and what a CNN answers to noise differs most from CNN to CNN. "
        "Thresholds that nothing is fitted for separate noise better, too. Networks fitted with noise separate it fully here, "
        "not in the paper; the data alone do not explain that.",
    ),
    Reason(
        "CIFAR10",
        lambda cell: cell.concept == "CIFAR10",
        "MNIST for EMNIST, and our own way of making photographs grey and 28 × 28 pixels large.",
    ),
    Reason(
        "Omniglot",
        lambda cell: cell.concept == "Omniglot",
        "MNIST for EMNIST, and our own way of making the characters 28 × 28 pixels large. Networks that have not seen "
        "Omniglot lose more here, one that has seen it gains more.",
    ),
    Reason(
        "`all`",
        lambda cell: cell.concept == "all",
        "The sum of the above, noise and CIFAR10 first. AUPR-Out depends on the share of unknown pictures, too.",
    ),
    Reason(
        "`correct/incorrect`",
        lambda cell: cell.concept == DIGITS,
        "MNIST for EMNIST: 20,000 training digits, and another share of wrong ones, on which AUPR-Out depends.",
    ),
    Reason("Others", lambda _: True, "MNIST for EMNIST."),
)
"""The first that applies counts."""


def beside(results: Averaged, *, reasons: bool) -> Iterator[str]:
    """Yield the section: both figures of each cell, what differs and why, and the paper's contradictions.

    `reasons` says whether the likely reasons hold. They were written for MNIST and no letters.
    """
    found = cells(results)
    yield from (HEADING, "", _counts(found), "")
    for table, name in NAMES.items():
        for metric, title in METRIC_NAMES.items():
            yield from _table(
                f"Table {table}, {name}: {title}", [c for c in found if (c.table, c.metric) == (table, metric)]
            )
    if reasons:
        yield from _reasons([cell for cell in found if cell.differs])
    yield from ("The paper contradicts itself in five places:", "")
    yield from (f"{number}. {text}" for number, text in enumerate(reported.INCONSISTENCIES, 1))
    yield from ("", reported.OTHER_NETWORKS, "")


def cells(results: Averaged) -> list[Cell]:
    """Return all cells of the paper's tables, in its order."""
    return [
        Cell(table, row, concept, metric, figure, _ours(results, _key(table, row), concept, metric))
        for table, paper in reported.TABLES.items()
        for metric, rows in paper.rows.items()
        for row, figures in rows.items()
        for concept, figure in zip(paper.concepts, figures, strict=True)
    ]


def _key(table: int, row: str) -> Key:
    if table == 1 or row in THRESHOLDS:
        return 1, row, UNFITTED
    return (2, row, VALIDATION) if table == 2 else (3, "neural network", row)


def _ours(results: Averaged, key: Key, concept: str, metric: str) -> Mean | None:
    there = key in results.rows and concept in results.concepts
    return results.mean(key, concept, metric) if there else None


def _counts(found: Sequence[Cell]) -> str:
    compared, missing = [cell for cell in found if cell.ours], [cell for cell in found if not cell.ours]
    differing = [cell for cell in compared if cell.differs]
    higher = sum(cell.difference > 0 for cell in differing)
    lacking = ", ".join(dict.fromkeys(cell.concept for cell in missing))
    return (
        f"Each cell has the paper's figure, ours, and the difference in points. The paper has {len(found)} figures; "
        f"{len(compared)} of them have one of ours beside them"
        + (f", {len(missing)} have none, because these pictures are missing here: {lacking}. " if missing else ". ")
        + f"{len(compared) - len(differing)} agree within the spread. {len(differing)} do not (in bold): ours is higher in "
        f"{higher} of these, lower in {len(differing) - higher}. Within the spread means: at most {SPREADS} standard deviations "
        "of ours, which is how much single CNNs differ. The paper gives no spread of its own."
    )


def _table(title: str, chosen: Sequence[Cell]) -> Iterator[str]:
    concepts = list(dict.fromkeys(cell.concept for cell in chosen))
    yield f"| {title} | {' | '.join(concepts)} |"
    yield "|---" * (1 + len(concepts)) + "|"
    for row in dict.fromkeys(cell.row for cell in chosen):
        yield f"| {row} | {' | '.join(str(cell) for cell in chosen if cell.row == row)} |"
    yield ""


def _reasons(differing: Sequence[Cell]) -> Iterator[str]:
    yield "Likely reasons. None of them was tested by an experiment of its own."
    yield ""
    yield "| where | cells beyond the spread | differences in AUROC | likely reason |"
    yield "|---|---|---|---|"
    first = [next(reason for reason in REASONS if reason.applies(cell)) for cell in differing]
    for reason in REASONS:
        mine = [cell for cell, its in zip(differing, first, strict=True) if its is reason]
        if mine:
            yield f"| {reason.where} | {len(mine)} | {_range(mine)} | {reason.text} |"
    yield ""


def _range(chosen: Sequence[Cell]) -> str:
    changes = [cell.difference for cell in chosen if cell.metric == "auroc"]
    if not changes:
        return ""
    low, high = _points(min(changes)), _points(max(changes))
    return low if low == high else f"{low} to {high}"


def _points(change: float) -> str:
    return f"{round(change, 2) + 0.0:+.2f}"  # + 0.0 makes −0 a 0
