"""The command `gradscore reference`, and what `score` and `evaluate` make of its file."""

import json
import re

import numpy as np
import pytest
import torch

from gradscore.cli import main
from gradscore.scoring.detector_columns import DETECTOR_COLUMNS
from models.digits_cnn import DigitsCNN


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs the command line and returns its exit code, stdout and stderr."""

    def command(*arguments):
        monkeypatch.setattr("sys.argv", ["gradscore", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        out = capsys.readouterr()
        return code, out.out, out.err

    return command


def test_from_known_inputs_to_a_comparison(run, prepared, tmp_path):
    torch.manual_seed(0)
    model = prepared("reference-command", DigitsCNN().eval(), torch.zeros(2, 1, 8, 8))
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "known.npz", images=images)
    known, reference, table = tmp_path / "known.npz", tmp_path / "reference.safetensors", tmp_path / "scores.parquet"
    code, out, err = run("reference", model, known, "-o", reference, "--json")
    assert code == 0, err
    assert json.loads(out)["rows"] == 60
    assert re.search(r"wrote .*: \d+ detectors, from 60 of 60 right predictions \(0 wrong, 0 unreadable\)", err)
    assert run("reference", model, known, "-o", reference)[0] == 1
    assert run("score", model, known, "-o", table, "--features", "knn,gen", "--reference", reference)[0] == 0
    code, _, err = run("score", model, known, "-o", tmp_path / "x.parquet", "--features", "knn")
    assert code == 1
    assert "`gradscore reference MODEL KNOWN_INPUTS -o reference.safetensors`" in err
    noise = tmp_path / "noise.parquet"
    assert (
        run("unknowns", model, "-o", noise, "--count", "20", "--features", "knn,gen", "--reference", reference)[0] == 0
    )
    labels = tmp_path / "labels.csv"
    import pyarrow.parquet as pq

    ids = pq.read_table(table).column("id").to_pylist()
    predicted = pq.read_table(table).column("label").to_numpy()
    labels.write_text(
        "id,label\n"
        + "\n".join(f"{name},{(c + (i % 4 == 0)) % 10}" for i, (name, c) in enumerate(zip(ids, predicted, strict=True)))
    )
    code, out, err = run("evaluate", table, "--unknown", noise, "--labels", labels, "--json")
    assert code == 0, err
    assert {"max_softmax", "knn", "gen"} <= set(json.loads(out))
    assert json.loads(out)["knn"]["groups"]["noise"]["auroc"] >= 0
    code, _, err = run("reference", model, known, "-o", tmp_path / "right", "--labels", labels)
    assert code == 0, err
    assert "from 45 of 45 right predictions (15 wrong, 0 unreadable)" in err
    code, _, err = run("reference", model, known, "-o", tmp_path / "y", "--labels", tmp_path / "nothing.csv")
    assert code == 1
    assert "takes a CSV file, or the word folders" in err
    code, _, err = run("reference", model, known, "-o", tmp_path / "y", "--labels", "folders")
    assert code == 1
    assert "lie in no folder" in err


def test_help_names_every_detector_with_a_reference(run):
    from gradscore.detectors import DETECTORS

    words = set(re.findall(r"[\w-]+", run("reference", "--help")[1]))
    assert {name for name in DETECTOR_COLUMNS if DETECTORS[name].has_reference} <= words
    assert "Example: gradscore reference " in run("reference", "--help")[1]
