"""Every input, however odd, becomes a scored row or a row with its error. The process never crashes."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from gradscore import Scorer, open_source
from gradscore.runs.scoring_run import score_to_parquet
from gradscore.runs.verification import verify_output
from tests.support import corpus

COMMAND = [sys.executable, "-c", "from gradscore.cli import main; main()"]
CONTAINERS = """
import json, sys
from pathlib import Path
from tests.support import corpus
from gradscore import GradscoreError, Scorer, open_source

model, folder, cuts, flips = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
with Scorer.load(model, threads=1) as scorer:
    for name, whole in corpus.containers().items():
        ends = {"refused": 0, "failed": 0, "scored": 0}
        for content in (whole, *corpus.damaged(whole, cuts=cuts, flips=flips)):
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_bytes(content)
            try:
                source = open_source([folder / name])
            except GradscoreError as error:
                assert str(error).count(name) and len(str(error).splitlines()) == 1, error
                ends["refused"] += 1
                continue
            errors = [error for batch in scorer.stream(source) for error in batch.errors]
            assert len(errors) == len(source)
            ends["failed" if any(errors) else "scored"] += 1
        print(json.dumps([name, ends]), flush=True)
"""


@pytest.fixture(scope="module")
def model(prepared):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(660, 5))
    return prepared("corpus", module.eval(), torch.zeros(2, 3, 13, 17), color="convert")


def scored(model, folder, out, code):
    """Score a folder by the command line; return its rows once verified whole."""
    done = subprocess.run(
        [*COMMAND, "score", model, folder, "-o", out, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert verify_output(out, open_source([folder])).problems == ()
    rows = pq.read_table(out, columns=["id", "label", "error"]).to_pylist()
    assert json.loads(done.stdout)["failed"] == sum(row["error"] is not None for row in rows)
    assert all((row["label"] is None) != (row["error"] is None) for row in rows)
    return rows


def damage_images(model, folder, *, cuts, flips):
    (folder / "images").mkdir()
    count = 0
    for name, content in corpus.damaged_images(cuts=cuts, flips=flips):
        (folder / "images" / name).write_bytes(content)
        count += 1
    rows = scored(model, folder / "images", folder / "t.parquet", 3)
    assert len(rows) == count
    failed = Counter(row["id"].rpartition("-")[0] for row in rows if row["error"])
    assert set(failed) == {suffix.replace(".", "-") for suffix in corpus.FORMATS}
    assert all(number >= cuts / 2 for number in failed.values())


def test_damaged_images_of_every_format(model, tmp_path):
    damage_images(model, tmp_path, cuts=6, flips=20)


@pytest.mark.slow
def test_every_damaged_image_of_every_format(model, tmp_path):
    damage_images(model, tmp_path, cuts=20, flips=200)


def test_odd_images(model, tmp_path):
    (tmp_path / "images").mkdir()
    count = corpus.write_odd_images(tmp_path / "images")
    rows = scored(model, tmp_path / "images", tmp_path / "t.parquet", 3)
    assert len(rows) == count
    unexpected = [row for row in rows if row["id"].startswith("ok") != (row["error"] is None)]
    assert unexpected == []
    assert "ok-caf%E9-%FF.png" in {row["id"] for row in rows}


@pytest.mark.slow
def test_a_bomb_is_refused_in_little_memory(model, tmp_path):
    (tmp_path / "images").mkdir()
    for index in range(4):
        (tmp_path / f"images/{index}.png").write_bytes(corpus.bomb())
    shutil.copy(tmp_path / "images/0.png", tmp_path / "images/small.png")
    (tmp_path / "images/small.png").write_bytes(corpus.encoded(corpus.pixels(), format="PNG"))
    program = (
        "import sys\n"
        "from gradscore.cli import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "(peak,) = [line for line in open('/proc/self/status') if line.startswith('VmHWM')]\n"
        "print(int(peak.split()[1]) // 1024)\n"  # a process's `ru_maxrss` begins with that of its parent
    )
    arguments = ["score", str(model), str(tmp_path / "images"), "-o", str(tmp_path / "t.parquet")]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    errors = pq.read_table(tmp_path / "t.parquet")["error"].to_pylist()
    assert [error and "too large to decode safely" in error for error in errors] == [True] * 4 + [None]
    assert int(done.stdout.splitlines()[-1]) < 600


def damage_containers(model, folder, *, cuts, flips):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CONTAINERS, model, folder, str(cuts), str(flips)],
        capture_output=True, text=True, check=False, timeout=1800, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    ends = dict(map(json.loads, done.stdout.splitlines()))
    assert list(ends) == list(corpus.containers())
    for name, found in ends.items():
        assert sum(found.values()) == 1 + cuts + flips, name
        assert found["scored"] >= 1, name
        assert found["refused"] + found["failed"] >= cuts / 2, name


def test_damaged_containers(model, tmp_path):
    damage_containers(model, tmp_path, cuts=5, flips=12)


@pytest.mark.slow
def test_every_damaged_container(model, tmp_path):
    damage_containers(model, tmp_path, cuts=20, flips=200)


def test_a_container_that_cannot_be_opened_is_one_line_and_exit_code_1(model, tmp_path):
    for name, whole in corpus.containers().items():
        (tmp_path / name).write_bytes(whole[: len(whole) // 3] if name != "x.tar" else b"not a tar archive at all")
    for name in ("x.zip", "x.parquet"):
        done = subprocess.run(
            [*COMMAND, "score", model, tmp_path / name, "-o", tmp_path / "t.parquet"],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert name in done.stderr
    assert not (tmp_path / "t.parquet").exists()


def test_a_folder_that_goes_while_it_is_scored(model, tmp_path):
    (tmp_path / "images").mkdir()
    content = corpus.encoded(corpus.pixels(), format="PNG")
    for index in range(400):
        (tmp_path / f"images/{index:03d}.png").write_bytes(content)
    source, done = open_source([tmp_path / "images"]), 0

    def progress(count):
        nonlocal done
        done += count
        if done:
            shutil.rmtree(tmp_path / "images", ignore_errors=True)

    with Scorer.load(model) as scorer:
        summary = score_to_parquet(scorer, source, tmp_path / "t.parquet", batch_size=10, progress=progress)
    errors = pq.read_table(tmp_path / "t.parquet")["error"].to_pylist()
    assert (summary.scored, summary.failed) == (errors.count(None), 400 - errors.count(None))
    assert 10 <= summary.scored < 400
    assert set(errors) == {None, "cannot read the file: No such file or directory"}


def test_inputs_of_several_types_and_shapes_share_a_run(model, tmp_path):
    """Pixels and floats, images and arrays: each batch is scored by what it holds."""
    image = np.asarray(corpus.pixels()).transpose(2, 0, 1)
    (tmp_path / "a.png").write_bytes(corpus.encoded(corpus.pixels(), format="PNG"))
    np.save(tmp_path / "b.npy", image[None])
    np.save(tmp_path / "c.npy", image[None] / np.float32(255))
    with Scorer.load(model) as scorer:
        (batch,) = scorer.stream(open_source([tmp_path / name for name in ("a.png", "b.npy", "c.npy")]))
    assert batch.errors == (None, None, None)
    np.testing.assert_allclose(batch.scores.features[1:], batch.scores.features[[0, 0]], rtol=1e-4, atol=1e-7)
