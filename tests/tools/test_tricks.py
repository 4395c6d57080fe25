"""The benchmark of speed tricks knows their code, and what switches them off is there."""

from pathlib import Path

import pytest

from gradscore.bench.workloads import BENCHMARK_MODELS
from tools import tricks

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("trick", tricks.TRICKS, ids=lambda trick: trick.title)
def test_a_trick_names_its_code_and_models(trick):
    assert trick.files
    assert all((ROOT / file).is_file() for file in trick.files)
    assert set(trick.models) <= BENCHMARK_MODELS.keys()


def test_titles_differ():
    assert len({trick.title for trick in tricks.TRICKS}) == len(tricks.TRICKS)


@pytest.mark.parametrize(
    "off", [tricks.AT_FULL_SIZE, tricks.NO_BACKSTEPS, tricks.INDICES, tricks.ALONE, tricks.ALL_AT_ONCE]
)
def test_what_is_replaced_is_there(off):
    with off():
        pass
