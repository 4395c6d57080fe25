"""The results of scoring: label and features of each prediction."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Label and features of each prediction of a batch.

    Attributes
    ----------
    label
        Predicted class, int64 [B].
    features
        float64 [B, F], in the order of `feature_names`: first those of the layers, then entropy, max_softmax and residual,
        then extra features.
    """

    label: NDArray[np.int64]
    features: FloatArray
    feature_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def entropy(self) -> FloatArray:
        """Entropy of the softmax divided by log q: [B], from 0 to 1."""
        return self["entropy"]

    @property
    def max_softmax(self) -> FloatArray:
        """Softmax of the predicted class, [B]."""
        return self["max_softmax"]

    @property
    def residual(self) -> FloatArray:
        """1 − max_softmax, computed without cancellation, [B]."""
        return self["residual"]

    def __getitem__(self, feature: str) -> FloatArray:
        return self.features[:, self.feature_names.index(feature)]

    def rows(self, part: slice) -> "Scores":
        """Return some of the predictions."""
        return Scores(self.label[part], self.features[part], self.feature_names)


@dataclass(frozen=True)
class ScoredBatch:
    """Scores of consecutive entries of a source; a row with an error has NaN features and label −1."""

    ids: tuple[str, ...]
    scores: Scores
    errors: tuple[str | None, ...]
