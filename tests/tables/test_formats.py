"""Score tables hold the same rows in all file formats, and common libraries can read them."""

import csv
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gradscore import Scorer, ScoreTable, open_source
from gradscore.runs.scoring_run import score_to_parquet
from gradscore.tables.formats import TABLE_FORMATS
from models.digits_cnn import DigitsCNN


@pytest.fixture(scope="module")
def tables(prepared, tmp_path_factory):
    """The same inputs in every format: 40 rows, one broken, one with NaN features."""
    folder = tmp_path_factory.mktemp("formats")
    torch.manual_seed(0)
    model = prepared("formats", DigitsCNN().eval(), torch.zeros(2, 1, 8, 8))
    inputs = np.random.default_rng(0).standard_normal((39, 1, 8, 8)).astype(np.float32)
    inputs[5] = np.nan
    np.save(folder / "x.npy", inputs)
    (folder / 'ünï, "q".png').write_bytes(b"broken")
    source = open_source([folder / "x.npy", folder / 'ünï, "q".png'])
    with Scorer.load(model) as scorer:
        for suffix in TABLE_FORMATS:
            summary = score_to_parquet(scorer, source, folder / f"t{suffix}", batch_size=10, shard_rows=10)
            assert (summary.scored, summary.failed, summary.not_finite) == (39, 1, 1)
    return folder


@pytest.fixture(scope="module")
def wanted(tables):
    return pq.read_table(tables / "t.parquet")


def same(one, other):
    return one == other or (
        isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    )


def test_parquet_says_who_wrote_it(tables, wanted):
    metadata = ScoreTable.read(tables / "t.parquet").metadata
    assert {"model_fingerprint", "schema_version", "backend", "providers", "gradscore_version"} <= set(metadata)
    assert pq.ParquetFile(tables / "t.parquet").metadata.row_group(0).column(5).compression == "ZSTD"
    assert wanted.num_rows == 40


def test_arrow(tables, wanted):
    table = pa.ipc.open_stream(tables / "t.arrow").read_all()
    assert str(table.to_pylist()) == str(wanted.to_pylist())
    assert ScoreTable.of(table).model_fingerprint == ScoreTable.read(tables / "t.parquet").model_fingerprint


def test_csv(tables, wanted):
    with (tables / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    for row, good in zip(rows, wanted.to_pylist(), strict=True):
        assert list(row) == list(good)
        for name, value in good.items():
            if isinstance(value, float):
                assert same(float(row[name]), value), name
            else:
                assert row[name] == ("" if value is None else str(value)), name


def test_json_lines(tables, wanted):
    lines = (tables / "t.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert len(rows) == 40
    for row, good in zip(rows, wanted.to_pylist(), strict=True):
        assert row == {
            name: None if isinstance(value, float) and math.isnan(value) else value for name, value in good.items()
        }


def test_pandas_opens_the_parquet(tables, wanted):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    assert pandas.read_parquet(tables / "t.parquet")["id"].tolist() == wanted["id"].to_pylist()


def test_polars_opens_the_parquet(tables, wanted):
    polars = pytest.importorskip("polars", reason="polars is not installed")
    assert polars.read_parquet(tables / "t.parquet")["id"].to_list() == wanted["id"].to_pylist()


def test_duckdb_opens_the_parquet(tables, wanted):
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    rows = duckdb.read_parquet(str(tables / "t.parquet")).project("id").fetchall()
    assert [row[0] for row in rows] == wanted["id"].to_pylist()
