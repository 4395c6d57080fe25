"""Every command as a user runs it: its stdout, its stderr and its exit code."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.main import get_command

from gradscore.cli import commands as cli
from gradscore.tables.table import ScoreTable
from tests.support import signals

COMMAND = [sys.executable, "-c", "from gradscore.cli import main; main()"]
CLASSES = ("ant", "bee", "cat")
NET = """
import torch
def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3)
    )
def other():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
"""


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs the command line in this process: arguments -> exit code, stdout, stderr."""

    def call(*arguments):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["gradscore", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return call


def shell(*arguments, **options):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=180, **options
    )


def refused(result, message, code=1):
    """Assert one line on stderr with this message, nothing on stdout."""
    found, out, err = result
    assert found == code, err
    assert out == ""
    assert err.startswith("gradscore: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with images, an exported and prepared classifier, and score tables, all made by the command line."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "cli_test_net.py").write_text(NET)
    rng = np.random.default_rng(0)
    for place in ("known", "test"):
        for name in CLASSES:
            (folder / place / name).mkdir(parents=True)
            for index in range(20):
                Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(
                    folder / place / name / f"{index}.png"
                )
    (folder / "noise").mkdir()
    for index in range(12):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"noise/{index}.png")
    names = ",".join(CLASSES)
    lines = [
        f"export cli_test_net:build --input-shape 1x8x8 --class-names {names} -o classifier.onnx",
        "export cli_test_net:other --input-shape 1x8x8 --exporter torchscript -o other.onnx",
        "prepare classifier.onnx -o scoring.onnx",
        "prepare other.onnx -o other.scoring.onnx",
        *(f"score scoring.onnx {place} -o {place}.parquet" for place in ("known", "test", "noise")),
        "score other.scoring.onnx test -o other.parquet",
        "fit known.parquet --unknown noise.parquet:10 --method lasso -o verdict.onnx",
    ]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    for line in lines:
        done = shell(*line.split(), cwd=folder, env=environment)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        assert done.stdout == "", line
    return folder


def test_the_whole_way_leaves_what_it_should(world):
    table = ScoreTable.read(world / "test.parquet")
    assert len(table) == 60
    assert table.class_names == CLASSES
    assert table.ids()[:2] == ["ant/0.png", "ant/1.png"]
    assert not list(world.glob(".*.part"))


def test_every_command_is_tested_here():
    source = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    root = get_command(cli.app)
    for name, command in root.commands.items():
        for child in getattr(command, "commands", {"": None}):
            words = f"{name} {child}".strip()
            assert f'"{words} ' in source or f'"{words}"' in source or '", "'.join(words.split()) in source, words


def test_every_command_explains_itself(run):
    for arguments in (["--help"], ["builder", "--help"], *([name, "--help"] for name in get_command(cli.app).commands)):
        code, out, err = run(*arguments)
        assert (code, err) == (0, "")
        assert "Usage: " in out
    for name in (
        "export",
        "prepare",
        "inspect",
        "score",
        "fit",
        "apply",
        "evaluate",
        "explain",
        "unknowns",
        "report",
        "verify",
    ):
        assert f"Example: gradscore {name} " in run(name, "--help")[1]


def test_help_names_every_choice(run):
    from gradscore.comparing.comparison import TARGETS
    from gradscore.metrics.evaluation import CONVENTIONS
    from gradscore.scoring.extra_features import EXTRA_FEATURES
    from gradscore.unknowns.kinds import KINDS
    from gradscore.verdict import AUTO, CALIBRATIONS, METHODS, RECIPES, TRANSFORMS

    tables = {
        "score": [EXTRA_FEATURES],
        "fit": [[AUTO], RECIPES, METHODS, TRANSFORMS, CALIBRATIONS],
        "evaluate": [TARGETS, CONVENTIONS],
        "unknowns": [KINDS, EXTRA_FEATURES],
    }
    for command, choices in tables.items():
        words = set(re.findall(r"[\w-]+", run(command, "--help")[1]))
        assert {name for table in choices for name in table} <= words, command


def test_version(run):
    from gradscore import __version__

    assert run("--version") == (0, f"gradscore {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["scroe"], ["score"], ["score", "m.onnx", "images"], ["score", "--batch-size", "0", "m", "i", "-o", "x"],
        ["score", "--batch-size", "many", "m", "i", "-o", "x"],
        ["score", "--threads", "0", "m", "i", "-o", "x"], ["prepare", "c.onnx", "-o", "s.onnx", "--scale", "much"],
        ["fit", "--nonsense"],
    ],
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(arguments, run):
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert "Usage: " in err
    assert "Traceback" not in err


def test_score_prints_json_alone_on_stdout(run, world, tmp_path):
    code, out, err = run("score", world / "scoring.onnx", world / "test", "-o", tmp_path / "t.parquet", "--json")
    summary = json.loads(out)
    assert code == 0
    assert (summary["scored"], summary["failed"], summary["not_finite"]) == (60, 0, 0)
    assert summary["output"] == str(tmp_path / "t.parquet")
    assert summary["images_per_second"] > 0
    assert err.startswith("scored 60 inputs in ")
    again = pq.read_table(tmp_path / "t.parquet")
    assert again.equals(pq.read_table(world / "test.parquet"))


def test_batch_size_and_threads_change_no_row(run, world, tmp_path):
    run(
        "score", world / "scoring.onnx", world / "test", "-o", tmp_path / "t.parquet", "--batch-size", 7, "--threads", 1
    )
    one, two = (ScoreTable.read(path) for path in (tmp_path / "t.parquet", world / "test.parquet"))
    assert one.ids() == two.ids()
    np.testing.assert_array_equal(one.labels(), two.labels())
    np.testing.assert_allclose(one.features(), two.features(), rtol=1e-5, atol=1e-9)


def test_broken_images_become_rows_and_exit_code_3(run, world, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    whole = (world / "test/ant/0.png").read_bytes()
    (folder / "a_good.PNG").write_bytes(whole)
    (folder / "b_empty.png").write_bytes(b"")
    (folder / "c_cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "d_text.jpg").write_text("no image")
    Image.new("RGB", (8, 8)).save(folder / "e_color.png")
    (folder / "f_gone.png").symlink_to(folder / "nowhere")
    code, out, err = run("score", world / "scoring.onnx", folder, "-o", tmp_path / "t.parquet", "--json")
    assert code == 3
    summary = json.loads(out)
    assert (summary["scored"], summary["failed"]) == (1, 5)
    assert summary["first_error"].startswith("b_empty.png: the file is empty")
    assert "first failure: b_empty.png: the file is empty" in err
    rows = pq.read_table(tmp_path / "t.parquet").to_pylist()
    assert [row["id"] for row in rows] == [path.name for path in sorted(folder.iterdir())]
    messages = [row["error"] for row in rows]
    assert messages[0] is None
    for message, part in zip(
        messages[1:], ["zero bytes", "truncated", "known format", "3 channels", "No such"], strict=True
    ):
        assert part in message
    assert [row["label"] is None for row in rows] == [False, True, True, True, True, True]
    assert rows[1]["entropy"] is None
    kept = ScoreTable.read(world / "test.parquet").features()[0]
    np.testing.assert_allclose(ScoreTable.read(tmp_path / "t.parquet").features()[0], kept, rtol=1e-5, atol=1e-9)


def test_arrays_are_scored_like_images(run, world, tmp_path):
    pixels = np.stack([np.asarray(Image.open(world / f"test/ant/{index}.png")) for index in range(3)])
    np.savez(tmp_path / "x.npz", images=pixels)
    assert run("score", world / "scoring.onnx", tmp_path / "x.npz", "-o", tmp_path / "t.parquet")[0] == 0
    found, table = ScoreTable.read(tmp_path / "t.parquet"), ScoreTable.read(world / "test.parquet")
    assert found.ids() == ["x.npz#0", "x.npz#1", "x.npz#2"]
    rows = [table.ids().index(f"ant/{index}.png") for index in range(3)]
    np.testing.assert_allclose(found.features(), table.features()[rows], rtol=1e-5, atol=1e-9)


def test_verify(run, world, tmp_path):
    assert run("score", world / "scoring.onnx", world / "test", "-o", tmp_path / "t", "--limit", "50")[0] == 0
    code, out, err = run("verify", tmp_path / "t", "--json")
    assert (code, json.loads(out)) == (0, {"rows": 50, "failed": 0, "problems": [], "whole": True})
    assert err == f"{tmp_path}/t is whole: 50 rows, 0 failed\n"
    code, out, err = run("verify", tmp_path / "t", world / "test")
    assert (code, out) == (1, "")
    assert "problem: 10 inputs have no row: cat/18.png" in err or "problem: 10 inputs have no row: cat/" in err
    assert err.endswith(f"gradscore: {tmp_path}/t is not whole: 1 problem\n")


def test_a_dry_run_writes_nothing(run, world, tmp_path):
    arguments = ["score", world / "scoring.onnx", world / "test", "-o", tmp_path / "t.parquet", "--dry-run"]
    plan = json.loads(run(*arguments, "--json")[1])
    assert (plan["inputs"], plan["first"], plan["tried"], plan["unreadable"]) == (60, "ant/0.png", 16, [])
    code, out, err = run(*arguments, "--limit", "7")
    assert (code, out) == (0, "")
    assert err.startswith("would score 7 inputs (ant/0.png to ant/14.png), ")
    assert list(tmp_path.iterdir()) == []


def test_the_batch_size_found_is_kept_when_continuing(run, world, tmp_path):
    arguments = [
        "score",
        world / "scoring.onnx",
        world / "test",
        "-o",
        tmp_path / "t",
        "--batch-size",
        "auto",
        "--json",
    ]
    first = json.loads(run(*arguments)[1])
    assert first["batch_size"] in (32, 64, 128, 256, 512, 1024)
    again = json.loads(run(*arguments, "--resume")[1])
    assert (again["batch_size"], again["resumed"]) == (first["batch_size"], 60)


def test_a_finished_run_that_is_continued_says_that_nothing_was_left(run, world, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    arguments = ["score", world / "scoring.onnx", world / "test", tmp_path / "broken.png", "-o", tmp_path / "t.parquet"]
    code, _, err = run(*arguments, "--resume")
    assert code == 3
    assert err.startswith("scored 60 inputs in ")
    before = (tmp_path / "t.parquet").read_bytes()
    code, out, err = run(*arguments, "--resume")
    assert (code, out) == (3, "")
    assert err.startswith("nothing left to score: all 61 inputs were already done, 1 failed: ")
    assert "images/s" not in err
    assert "earlier run" not in err
    assert "first failure: " in err
    assert (tmp_path / "t.parquet").read_bytes() == before


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.csv", "t.jsonl"])
def test_scoring_leaves_pandas_alone(name, world, tmp_path):
    (tmp_path / "pandas.py").write_text("raise SystemExit('pandas was imported')")
    done = subprocess.run(
        [*COMMAND, "score", world / "scoring.onnx", world / "test", "-o", tmp_path / name],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / name).stat().st_size > 0


def test_arrow_on_stdout(world, tmp_path):
    arguments = [*COMMAND, "score", world / "scoring.onnx", world / "test", "-o", "-"]
    done = subprocess.run(arguments, capture_output=True, check=True, cwd=tmp_path)
    table = pa.ipc.open_stream(done.stdout).read_all()
    assert table.equals(pq.read_table(world / "test.parquet"))
    assert ScoreTable.of(table).class_names == CLASSES
    assert done.stderr.startswith(b"scored 60 inputs in ")
    assert list(tmp_path.iterdir()) == []
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(arguments, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("flags", [["--json"], ["--resume"]])
def test_a_stream_is_neither_continued_nor_mixed(flags, run, world):
    refused(run("score", world / "scoring.onnx", world / "test", "-o", "-", *flags), "need an output file")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("score {w}/scoring.onnx {w}/empty -o {t}/x", "holds no images (looked for "),
        ("score {w}/scoring.onnx {w}/absent -o {t}/x", "no such file or folder"),
        ("score {w}/absent.onnx {w}/test -o {t}/x", "gradscore prepare CLASSIFIER"),
        ("score {w}/classifier.onnx {w}/test -o {t}/x", "not a scoring model: run `gradscore prepare"),
        ("score {w}/test.parquet {w}/test -o {t}/x", "onnxruntime cannot load the model"),
        ("score {w}/scoring.onnx {w}/test -o {w}/test.parquet", "exists: choose another output, or pass --overwrite"),
        ("score {w}/scoring.onnx {w}/test -o {w}/absent/x", "create it first"),
        ("score {w}/scoring.onnx {w}/test -o {w}", "is a folder: name a file"),
        ("score {w}/scoring.onnx {w}/test -o {t}/x --providers CUDAExecutionProvider", "--providers"),
        ("score {w}/scoring.onnx {w}/test -o {t}/x --backend abacus", "--backend"),
        ("inspect {w}/classifier.onnx", "not a scoring model"),
        ("inspect {w}/absent.onnx", "no such file"),
        ("prepare {w}/absent.onnx -o {t}/x", "no such file"),
        ("prepare {w}/cli_test_net.py -o {t}/x", "not an ONNX model"),
        ("prepare {w}/classifier.onnx -o {w}/scoring.onnx", "--overwrite"),
        ("prepare {w}/classifier.onnx -o {t}/x --mean a,b", "--mean is 'a,b': give numbers separated by commas"),
        ("prepare {w}/classifier.onnx -o {t}/x --class-names a,b", "2 class names for 3 classes"),
        (
            "prepare {w}/classifier.onnx -o {t}/x --class-names {w}/names.txt",
            "does not exist; to give names themselves",
        ),
        ("prepare {w}/classifier.onnx -o {t}/x --class-names {w}/scoring.onnx", "cannot be read as text in UTF-8"),
        ("export models.absent:Net --input-shape 1x8x8 -o {t}/x", "cannot import 'models.absent'"),
        ("export models.mlp:MLP --input-shape 1x-8 -o {t}/x", "--input-shape is '1x-8'"),
        ("export models.mlp:MLP --input-shape 20 --exporter jit -o {t}/x", "--exporter takes dynamo, torchscript"),
        ("fit {w}/absent.parquet -o {t}/x", "no such score table"),
        ("fit {w}/scoring.onnx -o {t}/x", "cannot be read as a Parquet file"),
        ("fit {w}/known.parquet -o {w}/verdict.onnx", "--overwrite"),
        ("fit {w}/known.parquet -o {t}/x --method guess", "guess"),
        ("fit {w}/known.parquet -o {t}/x --unknown {w}/noise.parquet:13", "cannot draw 13 rows of 12"),
        ("fit {w}/noise.parquet -o {t}/x", "lie in no folder"),
        ("fit {w}/known.parquet -o {t}/x --unknown-labels maybe", "--unknown-labels is 'maybe'"),
        ("fit {w}/known.parquet -o {t}/x --labels {w}/absent.csv", "no such labels file"),
        ("fit {w}/known.parquet -o {t}/x --unknown {w}/other.parquet", "features differ"),
        ("apply {w}/test.parquet --verdict {w}/absent.onnx -o {t}/x", "no such verdict"),
        ("apply {w}/test.parquet --verdict {w}/scoring.onnx -o {t}/x", "not a verdict"),
        ("apply {w}/other.parquet --verdict {w}/verdict.onnx -o {t}/x", "features differ: the verdict has "),
        ("apply {w}/test.parquet --verdict {w}/verdict.onnx -o {w}/test.parquet", "--overwrite"),
        ("evaluate {w}/other.parquet --labels {w}/labels.csv --verdict {w}/verdict.onnx", "features differ"),
        ("evaluate {w}/test.parquet --convention mine", "unknown convention 'mine'"),
        ("evaluate {w}/test.parquet --verdict {w}/verdict.onnx --verdict {w}/verdict.onnx", "twice"),
    ],
)
def test_every_mistake_is_one_line(line, message, run, world, tmp_path):
    (world / "empty").mkdir(exist_ok=True)
    ids = ScoreTable.read(world / "other.parquet").ids()
    (world / "labels.csv").write_text("id,label\n" + "".join(f"{name},{index % 3}\n" for index, name in enumerate(ids)))
    refused(run(*(word.format(w=world, t=tmp_path) for word in line.split())), message)
    assert list(tmp_path.iterdir()) == []


def test_a_verdict_for_another_model_of_the_same_layers_is_refused(run, world, tmp_path):
    run("prepare", world / "classifier.onnx", "-o", tmp_path / "s.onnx", "--mean", "0.5")
    run("score", tmp_path / "s.onnx", world / "test", "-o", tmp_path / "t.parquet")
    result = run("apply", tmp_path / "t.parquet", "--verdict", world / "verdict.onnx", "-o", tmp_path / "v.parquet")
    refused(result, "scoring models differ: the verdict belongs to ")
    assert not (tmp_path / "v.parquet").exists()


def test_inspect(run, world):
    code, out, err = run("inspect", world / "scoring.onnx", "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert report["class_names"] == list(CLASSES)
    assert report["covered_share"] == 1
    assert report["weights"] == 4 * 9 + 4 + 144 * 3 + 3
    assert len(report["fingerprint"]) == 64
    code, out, err = run("inspect", world / "scoring.onnx")
    assert (code, err) == (0, "")
    for parameter in report["parameters"]:
        assert parameter["name"] in out
    assert f"{report['weights']} weights, 100.0% covered" in out
    assert report["fingerprint"] in out


def test_fit_and_apply_print_json_alone_on_stdout(run, world, tmp_path):
    code, out, err = run("fit", world / "known.parquet", "-o", tmp_path / "v.onnx", "--json")
    fitted = json.loads(out)
    assert code == 0
    assert 0 <= fitted["threshold"] <= 1
    assert fitted["rows"] == 60
    assert fitted["method"] == "max-softmax"
    assert err.startswith("fitted max-softmax to 60 rows (")
    assert "note: two-heads lacks 6 right predictions of known inputs\n" in err
    code, out, err = run(
        "apply", world / "test.parquet", "--verdict", tmp_path / "v.onnx", "-o", tmp_path / "p", "--json"
    )
    counts = json.loads(out)
    assert code == 0
    assert counts["accepted"] + counts["rejected"] == 60
    judged = pq.read_table(tmp_path / "p")
    assert judged.column("verdict").to_pylist().count("accept") == counts["accepted"]
    accepted = np.array(judged.column("verdict").to_pylist()) == "accept"
    np.testing.assert_array_equal(accepted, judged.column("p_correct").to_numpy() >= fitted["threshold"])
    assert f"{counts['accepted']} accepted" in err


def test_rows_with_an_error_are_not_judged(run, world, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/bad.png").write_bytes(b"")
    assert run("score", world / "scoring.onnx", tmp_path / "images", "-o", tmp_path / "t.parquet")[0] == 3
    code, out, _ = run(
        "apply", tmp_path / "t.parquet", "--verdict", world / "verdict.onnx", "-o", tmp_path / "p", "--json"
    )
    assert code == 0
    assert json.loads(out)["not_judged"] == 1
    (row,) = pq.read_table(tmp_path / "p").to_pylist()
    assert row["p_correct"] is None
    assert "zero bytes" in row["error"]


def test_evaluate(run, world):
    arguments = [
        "evaluate",
        world / "test.parquet",
        "--unknown",
        world / "noise.parquet",
        "--verdict",
        world / "verdict.onnx",
    ]
    code, out, err = run(*arguments, "--json")
    comparison = json.loads(out)
    assert (code, err) == (0, "")
    assert list(comparison) == ["max_softmax", "entropy", "verdict"]
    assert all(0 <= comparison[name]["auroc"] <= 1 for name in comparison)
    assert comparison["entropy"]["correct"] + comparison["entropy"]["incorrect"] == 72
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert f"{100 * comparison['verdict']['auroc']:.2f}" in out
    assert "percent; convention hendrycks\n" in out
    answers = comparison["verdict"]["overview"]
    assert (answers["known"], answers["unknown"]) == (60, 12)
    assert answers["auroc_wrong"] == comparison["verdict"]["groups"]["known"]["auroc"]
    assert out.startswith(
        f"accuracy {100 * answers['accuracy']:.2f} % of 60 known rows, {answers['wrong']} wrong; 12 unknown rows\n"
    )
    figures = [f"{100 * answers[name]:.2f}" for name in ("auroc_wrong", "auroc_unknown", "coverage")]
    assert re.search(r"│ verdict\s+│\s+" + r" │\s+".join(figures), out)
    assert comparison["entropy"]["overview"]["coverage"] is None


def test_evaluate_without_unknown_rows_has_one_question(run, world):
    arguments = ["evaluate", world / "test.parquet", "--verdict", world / "verdict.onnx"]
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].endswith("; no unknown rows")
    assert "finds wrong ones" in out
    assert "finds unknown ones" not in out
    answers = json.loads(run(*arguments, "--json")[1])["verdict"]["overview"]
    assert (answers["unknown"], answers["auroc_unknown"]) == (0, None)


def test_scores_of_ones_own_join_every_step(run, world, tmp_path):
    rng = np.random.default_rng(0)
    files = {}
    for name, high in (("known", 0), ("test", 0), ("noise", 9)):
        ids = ScoreTable.read(world / f"{name}.parquet").ids()
        lines = [f"{one},{high + rng.normal()},{rng.normal()}" for one in ids]
        files[name] = tmp_path / f"{name}.csv"
        files[name].write_text("\n".join(["id,distance,other", *lines, ""]), encoding="utf-8")
    noise = ["--unknown", world / "noise.parquet", "--extra", f"{files['noise']}:-distance"]
    fitted = ["--extra", f"{files['known']}:-distance", *noise]
    tested = ["--extra", f"{files['test']}:-distance", *noise]
    verdict = ["--verdict", tmp_path / "v.onnx"]
    code, _, err = run(
        "fit", world / "known.parquet", *fitted, "--method", "ridge", "--features", "distance", "-o", verdict[1]
    )
    assert code == 0, err
    assert "in no score table" not in err
    code, out, err = run(
        "evaluate", world / "test.parquet", *tested, *verdict, "--verdict", world / "verdict.onnx", "--json"
    )
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert list(found) == ["max_softmax", "entropy", "distance", "v", "verdict"]
    assert found["distance"]["overview"]["auroc_unknown"] > 0.95
    assert found["v"]["overview"]["auroc_unknown"] == found["distance"]["overview"]["auroc_unknown"]
    assert found["distance"]["ece"] is None
    code, out, _ = run("explain", world / "test.parquet", *tested, *verdict, "--json")
    assert {one["name"] for one in json.loads(out)} == {"p_right", "p_known", "distance"}
    code, _, err = run(
        "report", world / "test.parquet", *tested, *verdict, "--bootstrap", "0", "-o", tmp_path / "r.html"
    )
    assert code == 0, err
    assert '<th scope="row">distance</th>' in (tmp_path / "r.html").read_text(encoding="utf-8")

    apply = ["apply", world / "test.parquet", *verdict, "-o", tmp_path / "p.parquet", "--overwrite"]
    code, _, err = run(*apply, "--extra", files["test"])
    assert code == 0, err
    judged = pq.read_table(tmp_path / "p.parquet").column("p_correct").to_numpy()
    assert np.isfinite(judged).all()
    assert run(*apply, "--extra", files["test"], "--extra", files["noise"])[2].startswith(
        f"{files['noise']}: 12 of 12 ids are in no score table\n"
    )
    np.testing.assert_array_equal(pq.read_table(tmp_path / "p.parquet").column("p_correct").to_numpy(), judged)
    refused(run(*apply), "the verdict also reads distance, which the table lacks: join your own scores with --extra")
    refused(run(*apply, "--extra", files["noise"]), "60 of 60 rows of table known have no 'distance'")
    made = ["--with-noise", "5", "--model", world / "scoring.onnx", "-o", tmp_path / "w.onnx"]
    refused(
        run("fit", world / "known.parquet", *fitted, *made),
        "--model makes unknown inputs that no --extra file has scores of",
    )


def test_evaluate_per_group_with_intervals_and_another_target(run, world, tmp_path):
    assert run("unknowns", world / "scoring.onnx", "--count", "30", "-o", tmp_path / "uniform.parquet")[0] == 0
    arguments = ["evaluate", world / "test.parquet", "--bootstrap", "20"]
    for name in (world / "noise.parquet", tmp_path / "uniform.parquet"):
        arguments += ["--unknown", name]
    found = json.loads(run(*arguments, "--json")[1])["entropy"]
    assert set(found["groups"]) == {"known", "noise", "uniform"}
    assert found["groups"]["uniform"]["incorrect"] == 30
    assert len(found["intervals"]["auroc"]) == 2
    _, out, _ = run(*arguments)
    assert re.search(r"│ entropy\s+│ uniform\s+│ [\d.]+ \([\d.]+–[\d.]+\)", out)
    found = json.loads(run(*arguments, "--target", "known", "--json")[1])["entropy"]
    assert (found["correct"], found["incorrect"], set(found["groups"])) == (60, 42, {"noise", "uniform"})


def test_explain(run, world):
    arguments = ["explain", world / "test.parquet", "--verdict", world / "verdict.onnx"]
    code, out, err = run(*arguments, "--unknown", world / "noise.parquet", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert [one["name"] for one in found if one["kind"] == "head"] == [one["name"] for one in found[:2]]
    assert {one["kind"] for one in found} == {"head", "layer", "statistic", "feature"}
    code, out, _ = run(*arguments, "--repeats", "1")
    assert code == 0
    assert "AUROC lost" in out


@pytest.mark.parametrize("kind", ["uniform", "normal", "permutation", "patches", "blur", "inversion", "mixup"])
def test_unknowns_scored_in_one_step_are_those_written_and_scored(run, world, tmp_path, kind):
    made = ["unknowns", world / "scoring.onnx", "--kind", kind, "--count", "25", "--known", world / "known"]
    code, out, err = run(*made, "-o", tmp_path / "t.parquet")
    assert (code, out) == (0, "")
    assert err.startswith(f"made 25 inputs of no known class ({kind})")
    assert run(*made, "-o", tmp_path / "x.npz")[0] == 0
    with np.load(tmp_path / "x.npz") as archive:
        assert (archive["images"].shape, archive["images"].dtype) == ((25, 1, 8, 8), np.uint8)
    assert run("score", world / "scoring.onnx", tmp_path / "x.npz", "-o", tmp_path / "s.parquet")[0] == 0
    one, other = (ScoreTable.read(tmp_path / name) for name in ("t.parquet", "s.parquet"))
    np.testing.assert_array_equal(one.features(), other.features())
    assert one.ids()[0] == f"{kind}#0"


def test_fit_makes_unknown_inputs_of_every_kind_that_suits(run, world, tmp_path):
    shared = ["fit", world / "known.parquet", "--json", "--overwrite", "-o", tmp_path / "v.onnx"]
    model, known = ["--model", world / "scoring.onnx"], ["--known", world / "known"]

    def made(*flags):
        code, out, err = run(*shared, *flags)
        assert code == 0, err
        summary = json.loads(out)
        return summary["known"], summary["unknown"], summary["kinds_of_unknown"]

    few = ["--with-noise", "9"]
    assert made(*model, *known, *few) == (60, 63, 7)
    assert made(*model, *few) == (60, 18, 2)  # those that need no known inputs
    assert made(*model, *known, *few, "--noise", "blur,uniform") == (60, 18, 2)
    assert made(*model, *known, *few, "--unknown", world / "noise.parquet") == (60, 75, 8)
    assert made(*model, *known, "--with-noise", "0") == made() == (60, 0, 0)
    assert made(*model, "--noise", "uniform") == (60, 100, 1)
    for flags in (known, ["--noise", "uniform"]):
        refused(run(*shared, *flags), "--known and --noise make and score unknown inputs: give the scoring model")
    refused(run(*shared, *model, "--noise", "mist"), "unknown kind 'mist'; choose one of: uniform")
    refused(run(*shared, *model, "--noise", "blur"), "give some with --known")
    refused(run(*shared, *model, "--noise", "marginals", *known), "marginals is made of numbers")


def test_fit_tells_its_trial_in_five_lines_and_stores_it(run, world, tmp_path):
    table = ScoreTable.read(world / "known.parquet")
    truth = (table.labels() + (np.arange(60) % 4 == 0)) % 3  # every fourth prediction is wrong
    lines = [f"{name},{CLASSES[label]}\n" for name, label in zip(table.ids(), truth, strict=True)]
    (tmp_path / "labels.csv").write_text("id,label\n" + "".join(lines))
    arguments = ["fit", world / "known.parquet", "--model", world / "scoring.onnx", "--known", world / "known"]
    arguments += ["--labels", tmp_path / "labels.csv"]
    code, out, err = run(*arguments, "--with-noise", "9", "--method", "two-heads", "-o", tmp_path / "v.onnx", "--json")
    assert code == 0, err
    summary = json.loads(out)
    first, *trial = err.splitlines()[:6]
    pattern = r"fitted two-heads to 123 rows \(45 correct, 78 incorrect, 63 unknown inputs of 7 kinds\), accepts P\("
    assert re.match(pattern, first)
    assert re.sub(" +", " ", trial[0]) == (
        "on rows held out from the fit (unknown inputs by kind) AUROC max softmax entropy gain (95 %)"
    )
    for line, (name, words) in zip(
        trial[1:4],
        {"wrong": "wrong predictions", "unknown": "unknown inputs", "all": "both together"}.items(),
        strict=True,
    ):
        one = summary["trial"]["comparisons"][name]
        figures = [f"{100 * one[key]:.1f}" for key in ("auroc", "max_softmax", "entropy")]
        assert line.split()[:6] == [*words.split(), f"({one['others']})", *figures]
        assert line.endswith(f" to {100 * one['gain_high']:+.1f})")
        assert max(map(len, trial)) < 140
    assert re.fullmatch(
        r"  the threshold accepts [\d.]+ % \(\d+ to \d+\) of known inputs, [\d.]+ % \(\d+ to \d+\) of these right; "
        r"of unknown inputs it accepts [\d.]+ % \(\d+ to \d+\)",
        trial[4],
    )
    assert set(summary["trial"]) == {"comparisons", "coverage", "precision", "unknown_accepted", "kinds"}
    assert summary["trial"]["kinds"] == summary["kinds_of_unknown"] == 7


@pytest.mark.parametrize("method", ["auto", "max-softmax", "threshold"])
def test_methods_by_name(run, world, tmp_path, method):
    code, out, err = run("fit", world / "known.parquet", "--method", method, "-o", tmp_path / "v.onnx", "--json")
    assert code == 0, err
    assert json.loads(out)["method"] == ("max-softmax" if method == "auto" else method)
    code, _, err = run("apply", world / "test.parquet", "--verdict", tmp_path / "v.onnx", "-o", tmp_path / "p")
    assert code == 0, err
    judged = pq.read_table(tmp_path / "p")
    assert judged.column_names[3:] == ["p_right", "p_known", "p_correct", "verdict", "why", "error"]
    told = dict(zip(judged.column("why").to_pylist(), judged.column("verdict").to_pylist(), strict=True))
    assert told.get(None, "accept") == "accept"
    assert {told[why] for why in told if why} <= {"reject"}


def test_extra_features_from_scoring_to_the_comparison(run, world, tmp_path):
    table, noise, verdict = tmp_path / "t.parquet", tmp_path / "n.parquet", tmp_path / "v.onnx"
    asked = ["--features", "gradnorm,energy", "--features", "activations"]
    assert run("score", world / "scoring.onnx", world / "known", "-o", table, *asked)[0] == 0
    names = ScoreTable.read(table).feature_names
    assert names[:-18] == ScoreTable.read(world / "known.parquet").feature_names
    assert names[-18:-15] == ("energy", "gradnorm", "0.activation.l1")
    flags = ["--with-noise", 20, "--model", world / "scoring.onnx", "--features", "*.l2,gradnorm", "--folds", 0]
    flags += ["--method", "lasso"]
    assert run("fit", table, *flags, "-o", verdict)[0] == 0
    assert run("unknowns", world / "scoring.onnx", "--count", 9, *asked, "-o", noise)[0] == 0
    code, out, err = run("evaluate", table, "--unknown", noise, "--verdict", verdict, "--json")
    assert (code, err, list(json.loads(out))) == (0, "", ["max_softmax", "entropy", "energy", "gradnorm", "v"])
    refused(
        run("apply", world / "test.parquet", "--verdict", verdict, "-o", tmp_path / "a.parquet"),
        "the verdict also reads energy, gradnorm, 0.activation.l1, …, which",
    )
    refused(run("score", world / "scoring.onnx", world / "known", "-o", tmp_path / "x.parquet", "--features", "odin"),
            "no extra feature 'odin': --features takes recommended, max_logit")  # fmt: skip


def test_fit_flags_reach_the_verdict(run, world, tmp_path):
    shared = ["fit", world / "known.parquet", "--unknown", world / "noise.parquet", "--json", "--overwrite"]
    shared += ["-o", tmp_path / "v.onnx"]

    def fitted(*flags):
        code, out, err = run(*shared, *flags)
        assert code == 0, err
        return json.loads(out)

    found = fitted("--transform", "quantile", "--calibrate", "platt", "--folds", "3", "--method", "ridge")
    assert (found["transform"], found["calibration"], found["folds"]) == ("quantile", "platt", 3)
    assert fitted("--method", "nn", "--ensemble", "2", "--folds", "0")["ensemble"] == 2
    rules = {
        ("--target-recall", "0.9"): {"rule": "target-recall", "value": 0.9},
        ("--max-fpr", "0.4"): {"rule": "max-fpr", "value": 0.4},
        ("--cost-fp", "5", "--cost-fn", "1"): {"rule": "cost", "wrong_accepted": 5.0, "right_rejected": 1.0},
    }
    for flags, rule in rules.items():
        assert fitted(*flags)["threshold_rule"] == rule
    further = ["--calibration", world / "test.parquet", "--calibration-unknown", world / "noise.parquet"]
    found = fitted("--max-risk", "0.5", *further)
    assert found["threshold_rule"] == {"rule": "conformal-risk", "value": 0.5}
    assert found["threshold_rows"] == "72 further rows"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max-risk", "0.1"], "needs rows that the verdict was not fitted on"),
        (["--cost-fp", "1"], "--cost-fp and --cost-fn go together"),
        (["--max-fpr", "0.1", "--target-recall", "0.9"], "target-recall and max-fpr each choose a threshold"),
        (["--calibration-unknown", "x"], "--calibration-unknown requires --calibration"),
        (["--calibrate", "beta", "--method", "ridge"], "choose one of: none, platt, isotonic"),
        (["--calibrate", "platt", "--folds", "0", "--method", "ridge"], "platt calibration needs rows held out"),
        (["--transform", "log", "--method", "ridge"], "choose one of: signed-log, quantile"),
        (["--transform", "quantile", "--features", "*.l2"], "auto chooses transform and select by itself"),
        (["--unknown-share", "1"], "unknown_share must lie between 0 and 1"),
        (["--method", "two-heads"], "two-heads cannot be fitted: the 60 rows lack 6 right predictions"),
        (["--target-precision", "2"], "target-precision must lie between 0 and 1"),
    ],
)
def test_fit_flags_that_cannot_be(run, world, tmp_path, flags, message):
    refused(run("fit", world / "known.parquet", "-o", tmp_path / "v.onnx", *flags), message)
    assert not (tmp_path / "v.onnx").exists()


def test_report(run, world, tmp_path):
    arguments = [
        "report", world / "test.parquet", "--unknown", world / "noise.parquet", "--verdict", world / "verdict.onnx",
        "--images", world / "test", "--images", f"noise={world / 'noise'}", "--bootstrap", "10",
    ]  # fmt: skip
    code, out, err = run(*arguments, "-o", tmp_path / "r.html", "--png", tmp_path / "png", "--json")
    assert code == 0, err
    assert json.loads(out)["rows"] == 72
    assert len(list((tmp_path / "png").iterdir())) == 8
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    cards = text.count("<li>")
    assert cards == text.count("<img") == 12 + min(12, 72 - json.loads(out)["correct"])
    refused(run(*arguments, "-o", tmp_path / "r.html"), "--overwrite")
    refused(run("report", tmp_path / "none.parquet", "-o", tmp_path / "x.html"), "no such score table")
    refused(run(*arguments, "--images", tmp_path / "absent", "-o", tmp_path / "x.html"), "no such file or folder")
    assert not (tmp_path / "x.html").exists()


def test_unknowns_that_cannot_be(run, world, tmp_path):
    made = ["unknowns", world / "scoring.onnx"]
    refused(run(*made, "-o", tmp_path / "x.csv"), "must end in .parquet (a score table) or .npz")
    refused(run(*made, "-o", world / "test.parquet"), "--overwrite")
    refused(run("unknowns", world / "classifier.onnx", "-o", tmp_path / "x.npz"), "not a scoring model")


def test_labels_from_a_file(run, world, tmp_path):
    ids = ScoreTable.read(world / "test.parquet").ids()
    labels = tmp_path / "labels.csv"
    labels.write_text("id,label\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in ids))
    by_file, by_folder = (
        json.loads(run("evaluate", world / "test.parquet", *extra, "--json")[1]) for extra in (["--labels", labels], [])
    )
    assert by_file == by_folder


def test_class_names_from_a_file(run, world, tmp_path):
    (tmp_path / "names.txt").write_text("\ufeffAmeise\nBiene\nKäfer, klein\n\n", encoding="utf-8")
    code, _, err = run(
        "prepare", world / "classifier.onnx", "-o", tmp_path / "s.onnx", "--class-names", tmp_path / "names.txt"
    )
    assert code == 0, err
    report = json.loads(run("inspect", tmp_path / "s.onnx", "--json")[1])
    assert report["class_names"] == ["Ameise", "Biene", "Käfer, klein"]


def test_many_class_names_are_no_file_name(run, world, tmp_path):
    names = ",".join(f"class {number}" for number in range(1000))
    refused(
        run("prepare", world / "classifier.onnx", "-o", tmp_path / "s.onnx", "--class-names", names),
        "1000 class names for 3 classes",
    )


def test_names_in_brackets_are_printed_as_they_are(run, world, tmp_path):
    path = tmp_path / "[red]:smile:.parquet"
    code, _, err = run("score", world / "scoring.onnx", world / "noise", "-o", path)
    assert code == 0
    assert err.endswith(f"{path}\n")


def test_builder_status(run):
    code, out, err = run("builder", "status", "--json")
    status = json.loads(out)
    assert (code, err) == (0, "")
    assert status["installed"] is True
    code, out, _ = run("builder", "status")
    assert code == 0
    assert status["path"] in out


def test_builder_install_is_quick_the_second_time(run):
    code, out, err = run("builder", "install")
    assert (code, out) == (0, "")
    assert err.startswith("installed: ")


def test_preparing_without_the_builder_says_what_to_run(run, world, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    refused(
        run("prepare", world / "classifier.onnx", "-o", tmp_path / "s.onnx"), "run `gradscore builder install` once"
    )
    code, out, _ = run("builder", "status")
    assert code == 0
    assert "not installed (run `gradscore builder install`)" in out


def test_doctor(run, monkeypatch):
    code, out, err = run("doctor", "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert report["problems"] == []
    assert "CPUExecutionProvider" in report["providers"]
    code, out, _ = run("doctor")
    assert code == 0
    assert "CPUExecutionProvider" in out


def test_doctor_finds_two_runtimes(run, monkeypatch):
    from gradscore.runtime import session

    class Installed:
        def __init__(self, name):
            self._name = name

        def read_text(self, _filename):
            return f"Name: {self._name}"

    monkeypatch.setattr(session, "distributions", lambda: [Installed("onnxruntime"), Installed("onnxruntime-gpu")])
    session.load_onnxruntime.cache_clear()
    code, out, err = run("doctor")
    session.load_onnxruntime.cache_clear()
    assert (code, err) == (1, "")
    assert "problem: onnxruntime and onnxruntime-gpu overwrite one another's files" in out


def test_out_of_memory_is_one_line(run, world, tmp_path, monkeypatch):
    from gradscore.inputs import sources

    def exhausted(_, **options):
        raise MemoryError

    monkeypatch.setattr(sources, "open_source", exhausted)
    refused(run("score", world / "scoring.onnx", world / "test", "-o", tmp_path / "t.parquet"), "out of memory")


def test_a_full_disk_is_one_line_and_leaves_nothing(world, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    environment = {**os.environ, "NUMBA_DISABLE_JIT": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    done = shell(
        "score", world / "scoring.onnx", world / "test", "-o", tmp_path / "t.parquet", "--batch-size", 5,
        preexec_fn=limit, env=environment,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"gradscore: cannot write {tmp_path}/t.parquet: File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_is_one_line_exit_code_130_and_leaves_nothing(world, tmp_path):
    np.save(tmp_path / "many.npy", np.zeros((200_000, 8, 8), dtype=np.uint8))
    process = signals.start(
        [*COMMAND, "score", world / "scoring.onnx", tmp_path / "many.npy", "-o", tmp_path / "t.parquet"],
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".t.parquet.*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "gradscore: interrupted; no unfinished output is left\n"
    assert [path.name for path in tmp_path.iterdir()] == ["many.npy"]


@pytest.mark.parametrize(
    "arguments", [["inspect", "{}/scoring.onnx"], ["inspect", "{}/scoring.onnx", "--json"], ["doctor"]]
)
def test_a_reader_that_leaves_early_causes_no_traceback(arguments, world):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, *(word.format(world) for word in arguments)], stdout=writing, stderr=subprocess.PIPE, text=True,
        check=False,
    )  # fmt: skip
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.parametrize("descriptor", [1, 2])
def test_a_closed_stream_is_no_error(descriptor, world, tmp_path):
    done = shell(
        "score", world / "scoring.onnx", world / "test", "-o", tmp_path / "t.parquet", "--json",
        preexec_fn=lambda: os.close(descriptor),
    )  # fmt: skip
    assert done.returncode == 0
    assert len(ScoreTable.read(tmp_path / "t.parquet")) == 60
    assert bool(done.stdout) is (descriptor == 2)
    assert bool(done.stderr) is (descriptor == 1)


def test_a_full_disk_behind_stdout_is_one_line(world):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "inspect", world / "scoring.onnx"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "gradscore: No space left on device\n"


def test_a_pipe_that_cannot_print_the_table_s_signs(world):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for command in ("inspect", "doctor"):
        arguments = [world / "scoring.onnx"] if command == "inspect" else []
        done = shell(command, *arguments, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.isascii()


def test_a_table_in_a_pipe_is_not_cut(world, tmp_path):
    model = onnx.load(world / "classifier.onnx")
    long = "a.very.deep.module.path." * 8 + "weight"
    old = model.graph.initializer[0].name
    model.graph.initializer[0].name = long
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = long
    onnx.save(model, tmp_path / "c.onnx")
    assert shell("prepare", tmp_path / "c.onnx", "-o", tmp_path / "s.onnx").returncode == 0
    assert long in shell("inspect", tmp_path / "s.onnx", env={**os.environ, "COLUMNS": "80"}).stdout


def test_progress_is_shown_on_a_terminal_only(world, tmp_path):
    """A pseudo-terminal as stderr gets the bar with its speed; stdout stays clean for JSON."""
    import pty

    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "score", world / "scoring.onnx", world / "test", "-o", tmp_path / "t.parquet", "--json"],
        stdout=subprocess.PIPE, stderr=slave, text=True, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # the terminal is gone
            break
        if not part:
            break
        shown += part
    out, _ = process.communicate(timeout=30)
    os.close(master)
    assert process.returncode == 0
    assert json.loads(out)["scored"] == 60
    assert b"images/s" in shown
    assert b"60/60" in shown
    piped = shell("score", world / "scoring.onnx", world / "test", "-o", tmp_path / "t.parquet", "--overwrite")
    assert "60/60" not in piped.stderr


def test_bench_kernels_prints_json_alone(run):
    code, out, err = run(
        "bench", "kernels", "--case", "direct 256 × 16", "--backend", "numba", "--repeats", "2", "--json"
    )
    assert (code, err) == (0, "")
    assert json.loads(out)["kernels"]


def test_bench_scoring_of_an_unknown_model_is_one_line(run):
    code, out, err = run("bench", "scoring", "--model", "abacus")
    assert (code, out) == (1, "")
    assert "abacus" in err
    assert err.count("\n") == 1
