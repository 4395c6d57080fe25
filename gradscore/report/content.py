"""Content of a report: the numbers that it shows, computed from cases and verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore.comparing.cases import KNOWN, Cases
from gradscore.comparing.comparison import BASELINES, NO_COLUMNS, GroupedEvaluation, compare, confidences
from gradscore.comparing.overview import Overview, overviews
from gradscore.errors import InputError
from gradscore.metrics.evaluation import CONVENTIONS
from gradscore.metrics.ranking import ECE_BINS, Ranking, auroc
from gradscore.verdict import Verdict
from gradscore.version import __version__

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SOFTMAX = "max_softmax"
GALLERY = 12  # pictures in each gallery


@dataclass(frozen=True)
class Decision:
    """The effect of the threshold on one group, as numbers of rows."""

    group: str
    rows: int
    right: int
    accepted: int
    accepted_right: int


@dataclass(frozen=True)
class Content:
    """Everything that a report shows, for the rows whose features are all finite.

    Attributes
    ----------
    cases : Cases
        Those rows.
    comparison : mapping of str to GroupedEvaluation
        Evaluation of each confidence, pooled and per group.
    overview : mapping of str to Overview
        The two questions and the decision of each confidence.
    ranks : mapping of str to float64 [N]
        Values of each confidence. Higher means more likely correct.
    probabilities : mapping of str to float64 [N]
        The confidences that are probabilities: maximum softmax and the verdicts.
    chosen : str
        The confidence that decides: the first verdict, or maximum softmax without a verdict.
    threshold : float or None
        Predictions at or above it are accepted. None without a verdict.
    threshold_rule, method : str or None
        Threshold rule and method of the verdict that decides.
    separation : mapping of str to float
        AUROC of each single feature, above ½ if a larger value means more likely correct.
    doubtful : int64 array
        Rows of the known group with the lowest P(correct), lowest first.
    mistakes : int64 array
        Incorrect rows with the highest P(correct), highest first.
    convention, resamples
        As in `evaluate`.
    not_finite : int
        Number of rows left out because a feature is NaN or Inf.
    """

    cases: Cases
    comparison: Mapping[str, GroupedEvaluation]
    overview: Mapping[str, Overview]
    ranks: Mapping[str, FloatArray]
    probabilities: Mapping[str, FloatArray]
    chosen: str
    threshold: float | None
    threshold_rule: str | None
    method: str | None
    separation: Mapping[str, float]
    doubtful: IntArray
    mistakes: IntArray
    convention: str
    resamples: int
    not_finite: int

    @property
    def p(self) -> FloatArray:
        """P(correct) [N] of the confidence that decides."""
        return self.probabilities[self.chosen]

    def order(self) -> list[str]:
        """Return the confidences in the order of the figures. Verdicts come first, because colours are limited."""
        return sorted(self.ranks, key=lambda name: (name != self.chosen, name in BASELINES))

    def decisions(self) -> list[Decision]:
        """Return the effect of the threshold on each group. The list is empty without a verdict."""
        if self.threshold is None:
            return []
        accepted, right = self.p >= self.threshold, self.cases.correct
        return [
            Decision(
                name,
                int(rows.sum()),
                int(right[rows].sum()),
                int(accepted[rows].sum()),
                int((accepted & right)[rows].sum()),
            )
            for index, name in enumerate(self.cases.group_names)
            if (rows := self.cases.group == index).any()
        ]

    def sides(self) -> list[tuple[str, NDArray[np.bool_]]]:
        """Return name and rows of each side in the figures: correct, incorrect, then each unknown group."""
        known = self.cases.group == 0
        unknown = [(name, self.cases.group == 1 + i) for i, name in enumerate(self.cases.group_names[1:])]
        sides = [("correct", self.cases.correct), ("incorrect", known & ~self.cases.correct), *unknown]
        return [(name, rows) for name, rows in sides if rows.any()]

    def ranking(self, name: str) -> Ranking:
        """Rank all rows by one confidence."""
        return Ranking.of(self.ranks[name], self.cases.correct)

    def reliability(self, name: str) -> tuple[FloatArray, FloatArray, IntArray]:
        """Return mean probability, fraction correct and number of rows of each bin.

        The bins are those of the ECE, without empty ones.
        """
        p, right = self.probabilities[name], self.cases.correct
        bins = np.clip(np.ceil(p * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
        count = np.bincount(bins, minlength=ECE_BINS)
        some = count > 0
        mean = np.bincount(bins, weights=p, minlength=ECE_BINS)[some] / count[some]
        share = np.bincount(bins, weights=right, minlength=ECE_BINS)[some] / count[some]
        return mean, share, count[some]

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers of the report for JSON."""
        table = self.cases.table
        return {
            "gradscore_version": __version__,
            "model_fingerprint": table.model_fingerprint,
            "source_fingerprint": table.metadata.get("source_fingerprint"),
            "rows": len(self.cases),
            "correct": int(self.cases.correct.sum()),
            "left_out": {"error": self.cases.left_out, "not_finite": self.not_finite},
            "groups": {name: int((self.cases.group == i).sum()) for i, name in enumerate(self.cases.group_names)},
            "convention": self.convention,
            "resamples": self.resamples,
            "chosen": self.chosen,
            "method": self.method,
            "threshold": self.threshold,
            "threshold_rule": self.threshold_rule,
            "decisions": [vars(one) for one in self.decisions()],
            "confidences": {
                name: {**one.as_dict(), "overview": self.overview[name].as_dict()}
                for name, one in self.comparison.items()
            },
            "feature_auroc": dict(self.separation),
            "reliability": {
                name: dict(
                    zip(("p", "share_correct", "rows"), map(np.ndarray.tolist, self.reliability(name)), strict=True)
                )
                for name in self.probabilities
            },
            "most_doubtful": [self._row(row) for row in self.doubtful.tolist()],
            "most_confident_mistakes": [self._row(row) for row in self.mistakes.tolist()],
        }

    def _row(self, row: int) -> dict[str, Any]:
        return {
            "id": self.cases.ids[row],
            "group": self.cases.group_names[self.cases.group[row]],
            "predicted": self.class_name(self.cases.label[row]),
            "true": self.class_name(self.cases.truth[row]),
            "p_correct": float(self.p[row]),
        }

    def shown(self) -> set[tuple[str, str]]:
        """Return the group and id of each input in the galleries."""
        rows = np.union1d(self.doubtful, self.mistakes).tolist()
        return {(self.cases.group_names[self.cases.group[row]], self.cases.ids[row]) for row in rows}

    def class_name(self, label: int) -> str | None:
        """Return the name of a class, or None for −1."""
        names = self.cases.table.class_names
        return None if label < 0 or names is None else names[label]


def build(
    cases: Cases,
    verdicts: Mapping[str, Verdict],
    *,
    columns: Mapping[str, int] = NO_COLUMNS,
    convention: str = "hendrycks",
    resamples: int = 1000,
    seed: int = 0,
) -> Content:
    """Compute everything that a report shows. The first verdict decides.

    `columns` are features that are confidences of their own, as in `compare`.

    Raises
    ------
    InputError
        All rows are correct, all are incorrect, or the convention is unknown.
    MismatchError
        A verdict belongs to another scoring model.
    """
    if convention not in CONVENTIONS:
        raise InputError(f"unknown convention {convention!r}; choose one of: {', '.join(CONVENTIONS)}")
    usable = cases.finite()
    ranks = confidences(usable, verdicts, columns)
    softmax = usable.features[:, usable.table.feature_names.index(SOFTMAX)]
    probabilities = {SOFTMAX: softmax, **{name: ranks[name] for name in verdicts}}
    chosen = next(iter(verdicts), SOFTMAX)
    verdict = verdicts.get(chosen)
    order = np.argsort(ranks[chosen], kind="stable")
    wrong = order[~usable.correct[order]]
    return Content(
        cases=usable,
        comparison=compare(usable, verdicts, columns=columns, convention=convention, resamples=resamples, seed=seed),
        overview=overviews(usable, ranks, verdicts),
        ranks=ranks,
        probabilities=probabilities,
        chosen=chosen,
        threshold=verdict.threshold if verdict else None,
        threshold_rule=str(verdict.summary["threshold_rule"]["rule"]) if verdict else None,
        method=verdict.method if verdict else None,
        separation=_separation(usable),
        doubtful=order[usable.group[order] == 0][:GALLERY],
        mistakes=wrong[::-1][:GALLERY],
        convention=convention,
        resamples=resamples,
        not_finite=len(cases) - len(usable),
    )


def _separation(cases: Cases) -> dict[str, float]:
    names = cases.table.feature_names
    return {
        name: auroc(Ranking.of(column, cases.correct)) for name, column in zip(names, cases.features.T, strict=True)
    }


__all__ = ["GALLERY", "KNOWN", "SOFTMAX", "Content", "Decision", "build"]
