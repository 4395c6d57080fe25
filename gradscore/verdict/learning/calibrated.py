"""A judge with its three probabilities calibrated on held-out rows, for a stated mix of known and unknown inputs."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradscore.verdict.learning.calibration import Calibration, CentredIsotonic, Platt, Uncalibrated
from gradscore.verdict.learning.judge import Answers, Judge, Judgement
from gradscore.verdict.learning.rows import LabelledRows
from gradscore.verdict.learning.verdict_nodes import VerdictNodes

FloatArray = npt.NDArray[np.float64]

FEWEST_FOR_STEPS = 30  # rows of the rarer class; with fewer, a curve of two numbers is all that they can tell


@dataclass(frozen=True, eq=False)
class Calibrated(Judge):
    """A judge, and a calibration of each of its answers."""

    judge: Judge
    right: Calibration
    known: Calibration
    correct: Calibration

    def __call__(self, features: FloatArray) -> Judgement:
        """Judge finite rows."""
        return self.calibrate(self.judge(features))

    def calibrate(self, raw: Judgement) -> Judgement:
        """Apply the calibrations."""
        return Judgement(self.right(raw.p_right), self.known(raw.p_known), self.correct(raw.p_correct))

    def emit(self, emit: VerdictNodes, features: str) -> Answers:
        """Write the same arithmetic as ONNX nodes."""
        raw = self.judge.emit(emit, features)
        return Answers(
            self.right.emit(emit, raw.p_right),
            self.known.emit(emit, raw.p_known),
            self.correct.emit(emit, raw.p_correct),
        )


def calibrated(judge: Judge, held_out: Judgement, rows: LabelledRows, unknown_share: float) -> Calibrated:
    """Learn the calibrations from held-out judgements, for a mix with this share of unknown inputs."""
    known = rows.known
    weight = mix_weights(known, unknown_share)
    return Calibrated(
        judge,
        _curve(held_out.p_right[known], rows.right[known], np.ones(int(known.sum()))),
        _curve(held_out.p_known, known, weight),
        _curve(held_out.p_correct, rows.right, weight),
    )


def mix_weights(known: npt.NDArray[np.bool_], unknown_share: float) -> FloatArray:
    """Return a weight per row [N], such that unknown rows have this share of the sum, N. Rows of one kind all weigh 1."""
    share = float(np.mean(~known))
    if share in (0.0, 1.0):
        return np.ones(len(known))
    return np.where(known, (1 - unknown_share) / (1 - share), unknown_share / share)


def _curve(p: FloatArray, positive: npt.NDArray[np.bool_], weight: FloatArray) -> Calibration:
    """Return a calibration that keeps the order of p; none if one class is missing or the curve would turn it round."""
    if positive.all() or not positive.any() or np.ptp(p) == 0:
        return Uncalibrated()
    curve = Platt.fit(p, positive, weight)
    if curve.slope <= 0:
        return Uncalibrated()
    enough = min(int(positive.sum()), int((~positive).sum())) >= FEWEST_FOR_STEPS
    return CentredIsotonic.fit(p, positive, weight) if enough else curve
