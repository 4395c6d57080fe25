"""Methods: the meta-classifiers by name, with their scikit-learn estimators and tuning parameters.

No method weights the classes. With log loss and a free intercept, P(correct) is a probability for the mix of correct
and incorrect rows in the fit. Weights would break this, and would not rank better. The decision threshold accounts
for the imbalance of the classes (see `thresholds.py`).

A penalty is given per row, as λ in (mean log loss) + λ·(norm), so that one value fits any number of rows.
scikit-learn's C is 1/(λ·rows). All logistic methods share one solver (see `penalized.py`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gradscore.errors import InputError
from gradscore.metrics.ranking import Ranking
from gradscore.verdict.learning.classifiers.estimators import Estimator
from gradscore.verdict.learning.classifiers.network import PlateauNetwork
from gradscore.verdict.learning.classifiers.penalized import PENALTIES, PenalizedLogistic, path
from gradscore.verdict.learning.thresholds import balanced_gain

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


class Method(ABC):
    """One kind of meta-classifier over standardised features z [N, K]."""

    penalties: ClassVar[tuple[float, ...]] = ()
    """Values of λ for cross-validation, strongest first. Empty if there is nothing to tune."""
    penalty: ClassVar[float] = 0.0
    """Value of λ if cross-validation is off or impossible."""

    @abstractmethod
    def estimator(self, rows: int, penalty: float, seed: int) -> Estimator:
        """Return the unfitted classifier."""

    def path(self, z: FloatArray, correct: BoolArray, penalties: Sequence[float], seed: int) -> Iterator[Estimator]:
        """Fit one classifier for each penalty, strongest first."""
        for penalty in penalties:
            yield self.estimator(len(correct), penalty, seed).fit(z, correct)

    def require(self, rows: int, features: int) -> None:  # noqa: B027 - most methods take any size
        """Refuse numbers of rows and features that the method cannot be fitted to.

        Raises
        ------
        InputError
            There are too few rows for the features.
        """

    def columns(self, z: FloatArray, correct: BoolArray) -> npt.NDArray[np.int64]:
        """Return the indices of the columns to use: all K, unless the method selects some."""
        del correct
        return np.arange(z.shape[1])


class Logistic(Method):
    """Logistic regression. `l1_ratio` is the share of the L1 penalty."""

    l1_ratio: ClassVar[float] = 0.0

    def estimator(self, rows: int, penalty: float, seed: int) -> Estimator:
        """Return gradscore's own logistic regression, which needs no seed."""
        del rows, seed
        return PenalizedLogistic(penalty, self.l1_ratio)

    def path(self, z: FloatArray, correct: BoolArray, penalties: Sequence[float], seed: int) -> Iterator[Estimator]:
        """Fit for each penalty, and begin with the weights for the stronger one."""
        del seed
        return path(z, correct, penalties, self.l1_ratio)


class Threshold(Logistic):
    """The one feature with the best threshold (equation 7 of the paper).

    P(correct) is a logistic curve over that feature, so it ranks rows as the feature does. A weak penalty keeps the
    curve finite if one threshold separates the classes completely.
    """

    penalty = 1e-4

    def columns(self, z: FloatArray, correct: BoolArray) -> npt.NDArray[np.int64]:
        """Return the column with the largest value of equation 7, in either direction."""
        rankings = [Ranking.of(column, correct) for column in z.T]
        gains = [max(balanced_gain(ranking), balanced_gain(ranking.negated())) for ranking in rankings]
        return np.array([int(np.argmax(gains))])


class Glm(Logistic):
    """Logistic regression without a penalty, but for one that keeps it unique and finite if the classes separate."""

    penalty = 1e-10

    def require(self, rows: int, features: int) -> None:
        """Refuse a fit without more rows than features.

        Such a fit separates the classes by chance.
        """
        if rows <= features:
            raise InputError(
                f"glm cannot be fitted to {rows} rows and {features} features: it has no penalty; use --method lasso "
                "or ridge, fewer features by --features, or more rows"
            )


class Lasso(Logistic):
    """Logistic regression with an L1 penalty, which keeps few features."""

    penalties = PENALTIES
    penalty = 1e-2
    l1_ratio = 1.0


class Ridge(Logistic):
    """Logistic regression with an L2 penalty."""

    penalties = PENALTIES
    penalty = 1e-2


class ElasticNet(Logistic):
    """Logistic regression with half an L1 and half an L2 penalty."""

    penalties = PENALTIES
    penalty = 1e-2
    l1_ratio = 0.5


class Network(Method):
    """The paper's network: one hidden layer of 15 ReLU units.

    It is trained by SGD with weight decay 1e-3 and momentum 0.9. The learning rate falls from 0.1 to 0.001 when the
    loss reaches a plateau.
    """

    penalty = 1e-3

    def estimator(self, rows: int, penalty: float, seed: int) -> Estimator:
        """Return gradscore's own network. scikit-learn's lacks the schedule and does not decay the biases."""
        del rows
        return PlateauNetwork(weight_decay=penalty, seed=seed)


class Boosting(Method):
    """Stochastic gradient boosting of 100 trees of depth 3 (Friedman 2002)."""

    def estimator(self, rows: int, penalty: float, seed: int) -> Estimator:
        """Return scikit-learn's gradient boosting whose trees are public, so that they can be saved."""
        from sklearn.ensemble import GradientBoostingClassifier  # noqa: PLC0415 - loaded for fitting only

        del rows, penalty
        return GradientBoostingClassifier(
            n_estimators=100, max_depth=3, subsample=0.5, max_features="sqrt", random_state=seed
        )


class Given(Method):
    """A scikit-learn classifier given by the caller, unchanged."""

    def __init__(self, template: Estimator) -> None:
        self._template = template

    def estimator(self, rows: int, penalty: float, seed: int) -> Estimator:
        """Return an unfitted copy of the caller's classifier."""
        from sklearn.base import clone  # noqa: PLC0415 - loaded for fitting only

        del rows, penalty, seed
        return clone(self._template)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "threshold": Threshold(),
        "glm": Glm(),
        "lasso": Lasso(),
        "ridge": Ridge(),
        "elastic-net": ElasticNet(),
        "nn": Network(),
        "boosting": Boosting(),
    }
)
