"""Recipes for the confidences in the tables: a single feature, or a fitted meta-classifier.

Every recipe returns confidences [N]. The paper's neural network is fitted several times, with consecutive seeds. All
others are fitted once.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, train_test_split

from gradscore import Verdict
from gradscore.verdict import METHODS
from gradscore.verdict.learning.classifiers.fitting import Estimator
from tools.paper.measures import Fitting

FloatArray = NDArray[np.float64]

FOLDS = 3
TUNING_ROWS = 3_000  # enough to find the penalty's decade; the solvers are slow on the few huge values of raw features
WEAK_PENALTIES = {
    "lasso": 3e-4,
    "elastic-net": 1e-3,
}  # fixed, because the search would take longer than everything else together
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)


class Recipe(Protocol):
    """A recipe for a confidence."""

    def confidences(self, fitting: Fitting, rows: FloatArray, networks: int, seed: int) -> list[FloatArray]:
        """Return the confidence of each row of [N, F], once for each network."""


@dataclass(frozen=True)
class Feature:
    """A single feature. Larger means more confident if `sign` is 1, less if it is −1."""

    feature: str
    sign: int = -1

    def confidences(self, fitting: Fitting, rows: FloatArray, networks: int, seed: int) -> list[FloatArray]:
        """Return the feature."""
        del networks, seed
        return [self.sign * rows[:, fitting.feature_names.index(self.feature)]]


@dataclass(frozen=True)
class Raw:
    """A meta-classifier of gradscore on raw features, standardised as in the paper, without a transform."""

    method: str
    features: tuple[str, ...]

    def confidences(self, fitting: Fitting, rows: FloatArray, networks: int, seed: int) -> list[FloatArray]:
        """Fit and apply."""
        columns, correct = fitting.columns(self.features), fitting.cases.correct
        train = fitting.cases.features[:, columns]
        mean, std = train.mean(axis=0), train.std(axis=0)
        z, test = (train - mean) / std, (rows[:, columns] - mean) / std
        penalty = _penalty(self.method, z, correct, seed)
        return [
            _fitted(self.method, z, correct, penalty, one).predict_proba(test)[:, 1]
            for one in range(seed, seed + (networks if self.method == "nn" else 1))
        ]


@dataclass(frozen=True)
class Fit:
    """A verdict of gradscore.

    Each wrong prediction of the known concept counts `weight` times in its fit.
    """

    method: str
    features: tuple[str, ...]
    transform: str = "signed-log"
    weight: int = 1

    def confidences(self, fitting: Fitting, rows: FloatArray, networks: int, seed: int) -> list[FloatArray]:
        """Fit and apply."""
        del networks
        features, correct = fitting.weighted(self.weight)
        verdict = Verdict.fit(
            features,
            correct,
            feature_names=fitting.feature_names,
            model_fingerprint=fitting.cases.table.model_fingerprint,
            method=self._method(len(features), seed),
            transform=self.transform,
            select=self.features,
            folds=0,  # the default penalty ranks equally well, and the threshold is not used
            seed=seed,
        )
        return [verdict.apply(rows)]

    def _method(self, rows: int, seed: int) -> str | Estimator:
        """Return the method, with a weaker penalty than its default if that is better."""
        penalty = WEAK_PENALTIES.get(self.method)
        return self.method if penalty is None else METHODS[self.method].estimator(rows, penalty, seed)


def _penalty(method: str, z: FloatArray, correct: NDArray[np.bool_], seed: int) -> float:
    """Return the penalty with the least held-out log loss.

    The search uses fewer penalties and rows than gradscore's own.
    """
    if not METHODS[method].penalties:
        return METHODS[method].penalty
    if len(z) > TUNING_ROWS:
        z, _, correct, _ = train_test_split(z, correct, train_size=TUNING_ROWS, stratify=correct, random_state=seed)
    losses = np.zeros(len(PENALTIES))
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(z, correct):
        for index, penalty in enumerate(PENALTIES):
            p = _fitted(method, z[train], correct[train], penalty, seed).predict_proba(z[test])[:, 1]
            losses[index] -= np.log(np.clip(np.where(correct[test], p, 1 - p), 1e-15, None)).sum()
    return PENALTIES[int(np.argmin(losses))]


def _fitted(method: str, z: FloatArray, correct: NDArray[np.bool_], penalty: float, seed: int) -> Estimator:
    return METHODS[method].estimator(len(z), penalty, seed).fit(z, correct)
