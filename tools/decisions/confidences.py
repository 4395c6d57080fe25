"""The table of confidences that the benchmark compares: published detectors, their sum, and verdicts."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np

import gradscore
from gradscore.detectors import DETECTORS
from gradscore.verdict import AUTO, RECIPES, Verdict
from tools.decisions.answers import Answers
from tools.decisions.measured import FloatArray, Mask, Measured
from tools.decisions.observed import kinds, last_layer, observations, verdict_columns

SUM = "sum of all detectors"
SINGLE_HEADS = ("ridge", "boosting", "nn", "lasso")  # the methods before recipes, one classifier for both questions
SMALLEST_SPREAD = 1e-12  # of a detector on right predictions; a constant one adds nothing to the sum
PACKAGE = Path(gradscore.__file__).parent


class Confidence(ABC):
    """A way to get a confidence for each test row, from the rows that verdicts may see."""

    code: ClassVar[Path]
    """Folder of the source that decides the answers."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def answers(self, measured: Measured) -> Answers:
        """Return the answers for the test rows."""

    @property
    def sources(self) -> list[Path]:
        """The files that decide the answers: a change in one makes cached answers stale."""
        own = Path(__file__).parent
        return [own / "confidences.py", own / "observed.py", *sorted(self.code.rglob("*.py"))]


class OneDetector(Confidence):
    """A detector; what is usual is learned from right predictions of known inputs alone."""

    code = PACKAGE / "detectors"

    def answers(self, measured: Measured) -> Answers:
        """Return the detector's confidence."""
        start = time.process_time()
        confidence = detected(measured, self.name, measured.test)
        return Answers.single(confidence, seconds=time.process_time() - start)


class SumOfDetectors(Confidence):
    """The plain sum of all detectors, each standardised by the right predictions that it has learned from."""

    code = PACKAGE / "detectors"

    def answers(self, measured: Measured) -> Answers:
        """Return the sum."""
        start, usual = time.process_time(), usual_rows(measured)
        total = np.zeros(int(measured.test.sum()))
        for name in DETECTORS:
            confidence = detected(measured, name, measured.test | usual)
            on_usual, tested = (
                confidence[usual[measured.test | usual]],
                confidence[measured.test[measured.test | usual]],
            )
            total += Answers.single((tested - np.nanmean(on_usual)) / max(np.nanstd(on_usual), SMALLEST_SPREAD)).correct
        return Answers.single(total, seconds=time.process_time() - start)


class OneVerdict(Confidence):
    """A verdict, fitted to known inputs and synthetic unknowns of all kinds, as `fit` makes them without any flag."""

    code = PACKAGE / "verdict" / "learning"

    def answers(self, measured: Measured) -> Answers:
        """Fit the verdict, and return its probabilities."""
        start, fit, columns = time.process_time(), measured.fit, verdict_columns(measured)
        verdict = Verdict.fit(
            measured.features[np.ix_(fit, columns)],
            measured.correct[fit],
            feature_names=[measured.feature_names[column] for column in columns],
            model_fingerprint=measured.about["scoring_model"],
            kind=kinds(measured)[fit],
            label=measured.label[fit],
            method=self.name,
        )
        seconds = time.process_time() - start
        said = verdict.answers(measured.features[np.ix_(measured.test, columns)])
        about = {"seconds": seconds, "method": verdict.method, "notes": list(verdict.summary["notes"])}
        return Answers(said.p_correct, said.p_right, said.p_known, about)


def detected(measured: Measured, name: str, rows: Mask) -> FloatArray:
    """Return a detector's confidence of some rows."""
    head, detector = last_layer(measured), DETECTORS[name]
    reference = detector.reference(observations(measured, usual_rows(measured)), head)
    return detector.confidence(observations(measured, rows), head, reference)


def usual_rows(measured: Measured) -> Mask:
    """Return the rows that detectors learn from: right predictions of known inputs in the fit."""
    return measured.fit & measured.correct


CONFIDENCES: Mapping[str, Confidence] = MappingProxyType(
    {
        one.name: one
        for one in (
            *(OneVerdict(name) for name in (AUTO, *RECIPES, *SINGLE_HEADS)),
            SumOfDetectors(SUM),
            *(OneDetector(name) for name in DETECTORS),
        )
    }
)
"""The confidences by name: verdicts, the sum, single detectors."""

VERDICTS = tuple(name for name, one in CONFIDENCES.items() if isinstance(one, OneVerdict))
