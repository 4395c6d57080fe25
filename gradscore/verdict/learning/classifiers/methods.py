"""Methods: the meta-classifiers by name, with their scikit-learn estimators and tuning parameters.

No method weights the classes. With log loss and a free intercept, P(correct) is a probability for the mix of correct
and incorrect rows in the fit. Weights would break this, and would not rank better. The decision threshold accounts
for the imbalance of the classes (see `thresholds.py`).

A penalty is given per row, as λ in (mean log loss) + λ·(norm), so that one value fits any number of rows.
scikit-learn's C is 1/(λ·rows).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gradscore.errors import InputError
from gradscore.metrics.ranking import Ranking
from gradscore.verdict.learning.classifiers.estimators import Estimator
from gradscore.verdict.learning.classifiers.network import PlateauNetwork
from gradscore.verdict.learning.thresholds import balanced_gain

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

PENALTIES = tuple(float(10.0**exponent) for exponent in np.arange(-1.0, -5.5, -0.5))


class Method(ABC):
    """One kind of meta-classifier over standardised features z [N, K]."""

    penalties: ClassVar[tuple[float, ...]] = ()
    """Values of λ for cross-validation, strongest first. Empty if there is nothing to tune."""
    penalty: ClassVar[float] = 0.0
    """Value of λ if cross-validation is off or impossible."""

    @abstractmethod
    def estimator(self, rows: int, penalty: float, seed: int) -> Estimator:
        """Return the unfitted scikit-learn classifier."""

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


class Threshold(Method):
    """The one feature with the best threshold (equation 7 of the paper).

    P(correct) is a logistic curve over that feature, so it ranks rows as the feature does. A weak penalty keeps the
    curve finite if one threshold separates the classes completely.
    """

    penalty = 1e-4

    def estimator(self, rows: int, penalty: float, seed: int) -> Estimator:
        """Return a logistic regression with a weak penalty."""
        return _logistic(l1_ratio=0.0, C=1 / (penalty * rows), random_state=seed)

    def columns(self, z: FloatArray, correct: BoolArray) -> npt.NDArray[np.int64]:
        """Return the column with the largest value of equation 7, in either direction."""
        gains = [max(balanced_gain(Ranking.of(sign * column, correct)) for sign in (1.0, -1.0)) for column in z.T]
        return np.array([int(np.argmax(gains))])


class Glm(Method):
    """Logistic regression without a penalty."""

    def estimator(self, rows: int, penalty: float, seed: int) -> Estimator:
        """Return an unpenalised logistic regression."""
        del rows, penalty
        return _logistic(l1_ratio=0.0, C=np.inf, random_state=seed)

    def require(self, rows: int, features: int) -> None:
        """Refuse a fit without more rows than features.

        Such a fit is not unique, and separates the classes by chance.
        """
        if rows <= features:
            raise InputError(
                f"glm cannot be fitted to {rows} rows and {features} features: it has no penalty; use --method lasso "
                "or ridge, fewer features by --features, or more rows"
            )


class Lasso(Method):
    """Logistic regression with an L1 penalty, which keeps few features."""

    penalties = PENALTIES
    penalty = 1e-2

    def estimator(self, rows: int, penalty: float, seed: int) -> Estimator:
        """Return coordinate descent, fast on correlated features. Scaled by 1,000, its intercept is hardly penalised."""
        return _logistic(
            solver="liblinear", l1_ratio=1.0, C=1 / (penalty * rows), intercept_scaling=1e3, random_state=seed
        )


class Ridge(Method):
    """Logistic regression with an L2 penalty."""

    penalties = PENALTIES
    penalty = 1e-2

    def estimator(self, rows: int, penalty: float, seed: int) -> Estimator:
        """Return a logistic regression with the L2 penalty."""
        return _logistic(l1_ratio=0.0, C=1 / (penalty * rows), random_state=seed)


class ElasticNet(Method):
    """Logistic regression with half an L1 and half an L2 penalty."""

    penalties = PENALTIES[:-2]  # with weaker penalties, the solver takes minutes and gains nothing over ridge
    penalty = 1e-2

    def estimator(self, rows: int, penalty: float, seed: int) -> Estimator:
        """Return the only solver of scikit-learn that has both penalties."""
        return _logistic(solver="saga", l1_ratio=0.5, C=1 / (penalty * rows), tol=1e-4, random_state=seed)


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


def _logistic(**settings: object) -> Estimator:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - loaded for fitting only

    return LogisticRegression(**{"max_iter": 5000, "tol": 1e-5, **settings})
