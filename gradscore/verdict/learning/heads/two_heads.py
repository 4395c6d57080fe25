"""The recipe `two-heads`: one head says whether the prediction is right, another whether the input is known.

The first head reads the softmax and the gradient, and is fitted to known inputs alone. The second one reads the scores of the
logits, and how unusual the input is at each depth. Distances are learned from right predictions by cross-fitting, so that the
head sees distances of rows that did not take part in learning them, as it will later. A larger distance never raises P(known).
P(correct) is the product of both.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradscore.verdict.learning.heads.depths import Depths, Scaled, gradient_columns, layer_groups
from gradscore.verdict.learning.heads.ridge_head import RidgeHead, sigmoid
from gradscore.verdict.learning.heads.right_head import RESIDUAL, RightHead
from gradscore.verdict.learning.heads.unusual import Unusual
from gradscore.verdict.learning.judge import Answers, Judge, Judgement, Recipe
from gradscore.verdict.learning.rows import LabelledRows
from gradscore.verdict.learning.transforms import SMALLEST_SPREAD, SignedLog
from gradscore.verdict.learning.verdict_nodes import VerdictNodes

FloatArray = npt.NDArray[np.float64]

HEAD_SCORES = ("entropy", "residual", "max_logit", "energy", "margin")
PARTS = 5  # of the cross-fitting
FEWEST_RIGHT = 25  # right predictions, to learn what is usual
FEWEST = 5  # wrong predictions, and unknown inputs
PENALTY = 3e-3
UNKNOWN_SHARE = 0.2  # of the mix for which the two heads are multiplied: more gives unusual inputs more weight


@dataclass(frozen=True, eq=False)
class TwoHeads(Judge):
    """P(right | known) from the softmax and the gradient, times P(known) from scores of the logits and from distances.

    Attributes
    ----------
    right, known
        The heads.
    logits
        The transform of the logit scores.
    depths, unusual
        Scales of the columns, and distances.
    mean, std : float64 [M]
        Of the log distances of right predictions; the deviation is 1 where they do not vary.
    """

    right: RightHead
    logits: SignedLog
    depths: Depths
    unusual: Unusual
    mean: FloatArray
    std: FloatArray
    known: RidgeHead

    def __call__(self, features: FloatArray) -> Judgement:
        """Judge finite rows."""
        scores = self.logits(features)
        distances = (self.unusual(self.depths(features)) - self.mean) / self.std
        right, known = sigmoid(self.right(features)), sigmoid(self.known(np.c_[distances, scores]))
        return Judgement(right, known, right * known)

    def emit(self, emit: VerdictNodes, features: str) -> Answers:
        """Write the same arithmetic as ONNX nodes."""
        scores = self.logits.emit(emit, features)
        distances = emit(
            "Div", emit("Sub", self.unusual.emit(emit, self.depths.emit(emit, features)), self.mean), self.std
        )
        right = emit("Sigmoid", self.right.emit(emit, features))
        known = emit("Sigmoid", self.known.emit(emit, emit("Concat", distances, scores, axis=1)))
        return Answers(right, known, emit("Mul", right, known))


class TwoHeadsRecipe(Recipe):
    """Fits `TwoHeads`."""

    def lacks(self, rows: LabelledRows) -> str | None:
        """Return what the rows lack."""
        if RESIDUAL not in rows.names or not layer_groups(rows.names):
            return "columns: the table has no residual, or no statistics of layers"
        if (right := int((rows.right & rows.known).sum())) < FEWEST_RIGHT:
            return f"{FEWEST_RIGHT - right} right predictions of known inputs"
        if (wrong := int((~rows.right & rows.known).sum())) < FEWEST:
            return f"{FEWEST - wrong} wrong predictions of known inputs"
        if (unknown := int((~rows.known).sum())) < FEWEST:
            return f"{FEWEST - unknown} unknown inputs"
        return None

    def fit(self, rows: LabelledRows, seed: int) -> TwoHeads:
        """Fit both heads."""
        known, usual = rows.take(rows.known), rows.known & rows.right
        scores = rows.columns(HEAD_SCORES)
        right = RightHead.fit(known, np.r_[scores, gradient_columns(rows.names)])
        logits = SignedLog.fit(known.features, scores)
        depths = Depths.fit(rows.take(usual))
        scaled = depths(rows.features)
        distances = cross_fitted(depths, scaled, rows, seed)
        mean, std = distances[usual].mean(axis=0), distances[usual].std(axis=0)
        std = np.where(std > SMALLEST_SPREAD, std, 1.0)
        fitted = usual | ~rows.known
        z = np.c_[(distances - mean) / std, logits(rows.features)][fitted]
        # What the made kinds have in common must not teach that a small distance is unknown.
        head = RidgeHead.fit_falling(z, rows.known[fitted], PENALTY, distances.shape[1])
        head = head.shifted(_shift(rows.take(fitted)))
        unusual = Unusual.fit(depths, scaled.take(usual), rows.label[usual], seed)
        return TwoHeads(right, logits, depths, unusual, mean, std, head)


def cross_fitted(depths: Depths, scaled: Scaled, rows: LabelledRows, seed: int) -> FloatArray:
    """Return the log distances of each row [N, M], learned from right predictions of the other parts."""
    part, parts = parts_of(rows, PARTS, seed), []
    for number in range(PARTS):
        others = (part != number) & rows.known & rows.right
        unusual = Unusual.fit(depths, scaled.take(others), rows.label[others], seed)
        parts.append(unusual(scaled.take(part == number)))
    out = np.empty((len(rows), parts[0].shape[1]))
    for number, distances in enumerate(parts):
        out[part == number] = distances
    return out


def parts_of(rows: LabelledRows, parts: int, seed: int) -> npt.NDArray[np.int64]:
    """Deal the rows to parts [N], right, wrong and unknown ones evenly."""
    return rows.dealt(parts, np.random.default_rng(seed))


def _shift(rows: LabelledRows) -> float:
    """Return what the log odds of P(known) gain from the rows' mix to that of `UNKNOWN_SHARE`."""
    share = float(np.mean(~rows.known))
    return float(np.log((1 - UNKNOWN_SHARE) / UNKNOWN_SHARE) - np.log((1 - share) / share))
