"""The trial of a verdict before it is saved: held-out rows, against maximum softmax and entropy, with intervals."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from gradscore.metrics.paired import Difference, auroc_differences, fraction_interval
from gradscore.verdict.learning.judge import Judgement
from gradscore.verdict.learning.rows import LabelledRows

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

RESIDUAL, ENTROPY = "residual", "entropy"  # columns of the baselines; both are larger for less confident predictions


@dataclass(frozen=True)
class Question:
    """One question that a verdict answers: which rows are asked about, and which of its probabilities answers.

    Attributes
    ----------
    words
        What is told apart from right predictions of known inputs.
    answer
        The probability that answers, a field of `Judgement`.
    wrong, unknown
        Whether wrong predictions of known inputs, and unknown inputs, are asked about.
    """

    words: str
    answer: str
    wrong: bool
    unknown: bool

    def asked(self, rows: LabelledRows) -> BoolArray:
        """Return which rows are asked about [N]."""
        wrong = rows.known & ~rows.right
        return np.asarray(rows.right | (wrong if self.wrong else False) | (~rows.known if self.unknown else False))


QUESTIONS: Mapping[str, Question] = MappingProxyType(
    {
        "wrong": Question("wrong predictions", "p_right", wrong=True, unknown=False),
        "unknown": Question("unknown inputs", "p_correct", wrong=False, unknown=True),
        "all": Question("both together", "p_correct", wrong=True, unknown=True),
    }
)


@dataclass(frozen=True)
class Comparison:
    """AUROC of a verdict and of the baselines for one question, with the 95 % interval of its gain on maximum softmax.

    `entropy` is None if the rows have no such column.
    """

    right: int
    others: int
    auroc: float
    max_softmax: float
    entropy: float | None
    gain_low: float
    gain_high: float

    @property
    def is_worse(self) -> bool:
        """Whether the whole interval of the gain is negative."""
        return self.gain_high < 0


@dataclass(frozen=True)
class Trial:
    """What held-out rows say of a verdict.

    Attributes
    ----------
    comparisons
        By the key of the question; questions without rows are missing.
    coverage, precision
        Of known inputs at the threshold: fraction, and its 95 % interval.
    unknown_accepted
        Fraction of unknown inputs accepted, and its 95 % interval; None without unknown inputs.
    kinds
        Number of kinds of unknown input, each judged by fits to the others.
    """

    comparisons: Mapping[str, Comparison]
    coverage: list[float]
    precision: list[float]
    unknown_accepted: list[float] | None
    kinds: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        comparisons = {name: asdict(one) for name, one in self.comparisons.items()}
        return {**asdict(self), "comparisons": comparisons}


def compare(judged: Judgement, rows: LabelledRows, part: IntArray) -> dict[str, Comparison]:
    """Compare held-out judgements with the baselines, question by question, within the parts [N] of the rows.

    Without the residual there is nothing to compare with.
    """
    found: dict[str, Comparison] = {}
    if RESIDUAL not in rows.names:
        return found
    for name, question in QUESTIONS.items():
        asked = question.asked(rows)
        compared = _compared(getattr(judged, question.answer)[asked], rows.take(asked), part[asked])
        if compared is not None:
            found[name] = compared
    return found


def tried(judged: Judgement, rows: LabelledRows, part: IntArray, threshold: float) -> Trial:
    """Compare held-out judgements with the baselines, and count what the threshold accepts."""
    accepted, known = judged.p_correct >= threshold, rows.known
    return Trial(
        compare(judged, rows, part),
        _fraction(accepted[known]),
        _fraction(rows.right[known & accepted]),
        _fraction(accepted[~known]) if not known.all() else None,
        len(rows.kinds),
    )


def _compared(confidence: FloatArray, rows: LabelledRows, part: IntArray) -> Comparison | None:
    """Compare one confidence with the baselines; None if no part has both classes."""
    members = [np.flatnonzero(part == number) for number in np.unique(part)]
    members = [one for one in members if rows.right[one].any() and not rows.right[one].all()]
    if not members:
        return None
    softmax = _difference(confidence, rows, RESIDUAL, members)
    entropy = _difference(confidence, rows, ENTROPY, members).second if ENTROPY in rows.names else None
    counts = int(rows.right.sum()), int((~rows.right).sum())
    return Comparison(*counts, softmax.first, softmax.second, entropy, softmax.low, softmax.high)


def _difference(confidence: FloatArray, rows: LabelledRows, column: str, members: list[IntArray]) -> Difference:
    """Compare a confidence with minus a column, part by part."""
    baseline = -rows.features[:, rows.names.index(column)]
    return auroc_differences([(confidence[one], baseline[one], rows.right[one]) for one in members])


def _fraction(hits: BoolArray) -> list[float]:
    count = int(hits.sum())
    return [count / len(hits) if len(hits) else 0.0, *fraction_interval(count, len(hits))]
