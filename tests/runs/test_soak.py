"""A long run holds no more memory than a short one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.digits_cnn import DigitsCNN


@pytest.mark.slow
def test_memory_does_not_grow_with_the_run(prepared, tmp_path):
    torch.manual_seed(0)
    model = prepared("soaked", DigitsCNN().eval(), torch.zeros(2, 1, 8, 8))
    command = [sys.executable, "-m", "tools.soak", model, tmp_path / "shards", "100000"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert (report["inputs"], report["failed"]) == (100_000, 100)
    assert report["most_mb"] < 1.05 * report["least_mb"]
    assert report["after_mb"] < 1.1 * report["warm_mb"]
