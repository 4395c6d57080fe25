"""What version 0.1 wrote is still read, and says the same: scoring models, tables, verdicts, runs that did not end."""

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
from gradscore_kernels import available_backends

from gradscore import InputError, ModelError, Scorer, ScoreTable, Verdict, __version__, fuse

FILES = Path(__file__).parent / "files/v0.1"
COMMAND = [sys.executable, "-c", "from gradscore.cli import main; main()"]
SCORING = ("scoring", "scoring-format-1", "scoring-format-1-early")
RUN = ["--backend", "reference", "--batch-size", "10", "--shard-rows", "20"]

# On the processor that the files were made on all numbers are equal bit for bit. Another instruction set sums float32 in
# another order, which moves a feature by some 3e-7 of its scale, as much as the formats' graphs differ among each other.
OF_SCALE = 2e-6


@pytest.fixture(scope="module")
def expected():
    with np.load(FILES / "expected.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def command(*arguments):
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout, done.stderr


def assert_alike(actual, wanted, of_scale=OF_SCALE):
    assert actual.shape == wanted.shape
    scale = np.abs(wanted).max(axis=0)
    assert (np.abs(actual - wanted) <= of_scale * scale).all()


def run(path, outputs):
    session = onnxruntime.InferenceSession(path)
    pixels = np.load(FILES / "images.npy", allow_pickle=False).astype(np.float32) / np.float32(255)
    return dict(zip(outputs, session.run(outputs, {"input": pixels}), strict=True))


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("name", SCORING)
def test_scoring_models_give_the_same_features(name, backend, expected):
    if backend not in available_backends():
        pytest.skip(f"the back end {backend} is not there")
    with Scorer.load(FILES / f"{name}.onnx", backend=backend) as scorer:
        scores = scorer.score(np.load(FILES / "images.npy", allow_pickle=False))
    assert list(scores.feature_names) == expected["feature_names"].tolist()
    assert_alike(scores.features, expected[f"{name} {backend}"])
    np.testing.assert_array_equal(scores.label, expected["self_scoring label"])


@pytest.mark.parametrize("name", SCORING)
def test_scoring_models_are_inspected(name):
    code, out, err = command("inspect", FILES / f"{name}.onnx", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["kind"], found["features"], found["covered_share"]) == ("scoring", 35, 1)
    assert found["class_names"] == ["north", "east", "south", "west"]


def test_tables_are_read(expected):
    whole, shards = ScoreTable.read(FILES / "scores.parquet"), ScoreTable.read(FILES / "shards")
    for table in (whole, shards):
        assert list(table.feature_names) == expected["feature_names"].tolist()
        np.testing.assert_array_equal(table.features(), expected["scoring reference"])
    assert shards.ids() == whole.ids()
    assert shards.model_fingerprint == whole.model_fingerprint


@pytest.mark.parametrize("name", ["scores.parquet", "shards"])
def test_tables_are_whole(name):
    code, out, err = command("verify", FILES / name, FILES / "images.npy", "--json")
    assert code == 0, err
    assert json.loads(out) == {"rows": 60, "failed": 0, "problems": [], "whole": True}


def test_the_verdict_gives_the_same(expected):
    verdict = Verdict.load(FILES / "verdict.onnx")
    p = verdict.apply(ScoreTable.read(FILES / "scores.parquet"))
    np.testing.assert_allclose(p, expected["p_correct"], rtol=1e-12)
    np.testing.assert_array_equal(p >= verdict.threshold, expected["self_scoring accept"])


def changed_since():
    """What is not as it was when the run began, among that which changes rows."""
    identity = json.loads((FILES / "half/manifest.json").read_text())["identity"]
    runtimes = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            runtimes.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    now = {"gradscore": __version__, "runtime": " ".join(runtimes)}
    return {key: f"{key} was {identity[key]}, is now {now[key]}" for key in now if identity[key] != now[key]}


def test_a_half_finished_run_goes_on_in_the_same_version_and_is_refused_in_another(expected, tmp_path):
    out = shutil.copytree(FILES / "half", tmp_path / "half")
    with pytest.raises(InputError, match=r"holds 20 of 60 rows of an unfinished run: finish it with .*--resume"):
        ScoreTable.read(out)
    code, text, err = command(
        "score", FILES / "scoring.onnx", FILES / "images.npy", "-o", out, "--resume", "--json", *RUN
    )
    if changes := changed_since():
        assert code == 1
        assert re.search(r"was begun by another run \((.*)\): ", err)[1].split("; ") == list(changes.values())
        return
    assert code == 0, err
    assert (json.loads(text)["resumed"], json.loads(text)["scored"]) == (20, 60)
    assert ScoreTable.read(out).ids() == ScoreTable.read(FILES / "scores.parquet").ids()
    assert pq.read_table(out / "part-00000.parquet").equals(pq.read_table(FILES / "shards/part-00000.parquet"))
    assert_alike(ScoreTable.read(out).features(), expected["scoring reference"])
    assert command("verify", out, FILES / "images.npy")[0] == 0


@pytest.mark.parametrize("name", ["scoring", "scoring-format-1"])
def test_scoring_models_are_fused(name, expected, tmp_path):
    verdict = FILES / "verdict.onnx" if name == "scoring" else None  # it belongs to that very file
    fuse(FILES / f"{name}.onnx", tmp_path / "f.onnx", verdict=verdict, features=["*"])
    outputs = ["logits", "label", "residual", "features", *(["p_correct", "accept"] if verdict else [])]
    for output, values in run(tmp_path / "f.onnx", outputs).items():
        if values.dtype.kind == "f":
            assert_alike(values, expected[f"self_scoring {output}"], of_scale=1e-5)  # sums in float32, two graphs
        else:
            np.testing.assert_array_equal(values, expected[f"self_scoring {output}"])


def test_what_was_prepared_before_fuse_was_there_is_refused(tmp_path):
    with pytest.raises(
        ModelError, match=r"was prepared by an older gradscore, without .*outputs: run `gradscore prepare` again"
    ):
        fuse(FILES / "scoring-format-1-early.onnx", tmp_path / "f.onnx")


def test_the_self_scoring_model_is_inspected_and_gives_the_same(expected):
    code, out, err = command("inspect", FILES / "self_scoring.onnx", "--json")
    assert code == 0, err
    assert json.loads(out)["kind"] == "self-scoring"
    outputs = [name.removeprefix("self_scoring ") for name in expected if name.startswith("self_scoring ")]
    for output, values in run(FILES / "self_scoring.onnx", outputs).items():
        wanted = expected[f"self_scoring {output}"]
        assert_alike(values.astype(np.float64), wanted.astype(np.float64), of_scale=1e-5)
