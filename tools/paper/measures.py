"""Measures of a confidence: correct against wrong predictions, against each unknown concept, and against all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from gradscore import ScoreTable, evaluate
from gradscore.comparing.cases import Cases, collect
from tools.paper.scores import Tables

FloatArray = NDArray[np.float64]

CORRECT = "correct/incorrect"
ALL = "all"
HELD_OUT = 1 / 3
METRICS = ("auroc", "aupr_in", "aupr_out")
Measures = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Fitting:
    """The rows that a verdict is fitted on: validation rows and known unknowns."""

    cases: Cases

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features."""
        return self.cases.table.feature_names

    def columns(self, names: Sequence[str]) -> list[int]:
        """Return the columns of features."""
        return [self.feature_names.index(name) for name in names]

    def weighted(self, weight: int) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Return features and outcomes, with each wrong prediction of the known concept repeated `weight` times."""
        wrong = (self.cases.group == 0) & ~self.cases.correct
        rows = np.repeat(np.arange(len(wrong)), np.where(wrong, weight, 1))
        return self.cases.features[rows], self.cases.correct[rows]

    def held_out(self, seed: int) -> tuple["Fitting", Cases]:
        """Return a part for fitting and the rest for choosing a method.

        The parts are stratified by outcome and concept.
        """
        kind = self.cases.group + (self.cases.correct * len(self.cases.group_names))
        train, rest = train_test_split(np.arange(len(kind)), test_size=HELD_OUT, stratify=kind, random_state=seed)
        return Fitting(_rows(self.cases, train)), _rows(self.cases, rest)


def fitting(tables: Tables, known_unknowns: Mapping[str, ScoreTable], test: Cases) -> Fitting:
    """Join the rows for fitting.

    Raises
    ------
    ValueError
        A row is also in the test set.
    """
    cases = collect(tables.validation, known_unknowns).finite()
    if shared := set(cases.ids) & set(test.ids):
        raise ValueError(f"{len(shared)} pictures are both fitted and tested on, such as {min(shared)}")
    return Fitting(cases)


def tested(tables: Tables) -> Cases:
    """Join the rows for testing: the known test set, and each unknown concept."""
    return collect(tables.test, tables.unknown).finite()


def measured(confidence: FloatArray, cases: Cases) -> Measures:
    """Return AUROC, AUPR-In and AUPR-Out by concept, in Hendrycks' convention: right predictions are positive.

    The negatives of each concept are compared with all right predictions of the known concept. `CORRECT` takes the
    wrong predictions of the known concept. `ALL` takes these and every unknown concept together.
    """
    rows = {CORRECT: cases.group == 0}
    rows |= {name: cases.correct | (cases.group == 1 + i) for i, name in enumerate(cases.group_names[1:])}
    rows[ALL] = np.ones(len(cases), dtype=np.bool_)
    return {name: _metrics(confidence[chosen], cases.correct[chosen]) for name, chosen in rows.items()}


def _metrics(confidence: FloatArray, correct: NDArray[np.bool_]) -> dict[str, float]:
    found = evaluate(confidence, correct)
    return {metric: 100 * getattr(found, metric) for metric in METRICS}


def _rows(cases: Cases, rows: NDArray[np.int64]) -> Cases:
    return replace(
        cases,
        features=cases.features[rows],
        correct=cases.correct[rows],
        group=cases.group[rows],
        ids=tuple(cases.ids[row] for row in rows.tolist()),
        label=cases.label[rows],
        truth=cases.truth[rows],
    )
