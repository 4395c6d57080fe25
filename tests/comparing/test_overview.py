"""The overview: both questions and the decision of each confidence, each only where the rows define it."""

from dataclasses import dataclass

import numpy as np
import pytest

from gradscore.comparing.cases import Cases
from gradscore.comparing.overview import overviews

KNOWN = ([9.0, 8.0, 7.0, 3.0, 6.0, 1.0], [True, True, True, True, False, False])


@dataclass
class Decided:
    """A verdict of which only the threshold counts."""

    threshold: float


def rows(confidence, correct, unknown=()):
    values = np.array([*confidence, *unknown])
    count = len(values)
    right = np.array([*correct, *[False] * len(unknown)], dtype=bool)
    group = np.array([0] * len(correct) + [1] * len(unknown), dtype=np.int64)
    return values, Cases(
        values[:, None], right, group, ("known", "noise"), ("",) * count, np.zeros(count), np.zeros(count), None, 0
    )


def of(values, cases, threshold=None):
    return overviews(cases, {"mine": values}, {} if threshold is None else {"mine": Decided(threshold)})["mine"]


def test_the_two_questions_are_answered_apart():
    found = of(*rows(*KNOWN, unknown=[2.0, 7.5, 0.0]))
    assert (found.known, found.wrong, found.unknown) == (6, 2, 3)
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.auroc_wrong == pytest.approx(7 / 8)
    assert found.auroc_unknown == pytest.approx((3 + 3 + 2 + 2 + 2 + 1) / 18)
    assert (found.threshold, found.coverage, found.precision) == (None, None, None)


def test_the_threshold_decides_on_all_rows():
    found = of(*rows(*KNOWN, unknown=[2.0, 7.5, 0.0]), threshold=6.0)
    assert (found.threshold, found.coverage, found.precision) == (6.0, pytest.approx(5 / 9), pytest.approx(3 / 5))


def test_what_the_rows_do_not_define_is_none():
    found = of(*rows(*KNOWN))
    assert (found.unknown, found.auroc_unknown) == (0, None)
    assert found.auroc_wrong == pytest.approx(7 / 8)
    assert of(*rows([1.0, 2.0], [True, True], unknown=[0.0])).auroc_wrong is None
    assert of(*rows([1.0, 2.0], [False, False])).auroc_wrong is None
    only = of(*rows([], [], unknown=[0.0]), threshold=1.0)
    assert (only.accuracy, only.auroc_unknown, only.coverage, only.precision) == (None, None, 0.0, None)
    assert of(*rows([], []), threshold=1.0).coverage is None
