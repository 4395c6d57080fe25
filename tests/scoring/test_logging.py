"""Logging of a run: it is silent unless the user asks for it."""

import logging

import numpy as np
import pytest
import torch

from gradscore import InputError, Scorer, ScoreTable, open_source
from gradscore.runs.scoring_run import score_to_parquet
from models.digits_cnn import DigitsCNN


@pytest.fixture(scope="module")
def model(prepared):
    torch.manual_seed(0)
    return prepared("logged", DigitsCNN().eval(), torch.zeros(2, 1, 8, 8))


@pytest.fixture
def source(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8))
    (tmp_path / "broken.png").write_bytes(b"broken")
    return open_source([tmp_path / "x.npy", tmp_path / "broken.png"])


def test_a_run_is_logged_from_load_to_end(model, source, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "gradscore"), Scorer.load(model) as scorer:
        score_to_parquet(scorer, source, tmp_path / "t.parquet")
    levels = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in levels] == ["INFO", "INFO", "WARNING", "INFO"]
    loaded, begun, failed, ended = (message for _, message in levels)
    assert loaded.startswith(f"loaded {model}: back end {scorer.backend} on CPUExecutionProvider")
    assert begun == f"scoring 6 inputs into {tmp_path}/t.parquet, 0 of them done by an earlier run"
    assert "broken.png: not an image of a known format" in failed
    assert "5 inputs scored, 1 failed" in ended


def test_slow_inputs_are_named(model, source, monkeypatch, caplog):
    monkeypatch.setattr("gradscore.scoring.scorer.SLOW", -1.0)
    with Scorer.load(model) as scorer:
        scorer.read(source.entries[0])
    assert "x.npy#0 took 0 s to read" in caplog.text


def test_single_precision_tables_hold_the_same_features(model, source, tmp_path):
    with Scorer.load(model) as scorer:
        for precision in ("float64", "float32"):
            score_to_parquet(scorer, source, tmp_path / f"{precision}.parquet", precision=precision)
        with pytest.raises(InputError, match="unknown precision 'float16': --precision takes float64, float32"):
            score_to_parquet(scorer, source, tmp_path / "t.parquet", precision="float16")
    double, single = (ScoreTable.read(tmp_path / f"{name}.parquet") for name in ("float64", "float32"))
    assert str(single.table.schema.field("all.l2").type) == "float"
    np.testing.assert_array_equal(single.features(), double.features().astype(np.float32))
    assert single.table.drop_columns(single.feature_names).equals(double.table.drop_columns(double.feature_names))
