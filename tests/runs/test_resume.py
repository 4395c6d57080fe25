"""However a run ends, its finished rows stay, and the next run resumes there: no row is lost or repeated."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from gradscore import GradscoreError, InputError, MismatchError, OutputExistsError, Scorer, ScoreTable, open_source
from gradscore.files.locking import locked
from gradscore.runs.destination import Destination
from gradscore.runs.joined_file import JoinedFile
from gradscore.runs.scoring_run import score_to_parquet
from gradscore.runs.verification import verify_output
from gradscore.tables.formats import Parquet
from gradscore.tables.manifest import MANIFEST, Manifest
from models.digits_cnn import DigitsCNN
from tests.support import signals

COMMAND = [sys.executable, "-c", "from gradscore.cli import main; main()"]
OPTIONS = ["--batch-size", "50", "--shard-rows", "100"]


@pytest.fixture(scope="module")
def model(prepared):
    torch.manual_seed(0)
    return prepared("resumed", DigitsCNN().eval(), torch.zeros(2, 1, 8, 8))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Five thousand images, a few of them broken."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(5000):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{index:04d}.png")
    for index in (0, 99, 100, 2500, 4999):
        (folder / f"{index:04d}.png").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def some(images, tmp_path_factory):
    """The first 500 of them."""
    listing = tmp_path_factory.mktemp("some") / "list.txt"
    listing.write_text("".join(f"{images}/{index:04d}.png\n" for index in range(500)))
    return f"@{listing}"


@pytest.fixture(scope="module")
def whole(model, images, tmp_path_factory):
    """The table of a run that nothing interrupted."""
    path = tmp_path_factory.mktemp("whole") / "t.parquet"
    assert subprocess.run([*COMMAND, "score", model, images, "-o", path, *OPTIONS], check=False).returncode == 3
    return pq.read_table(path)


def command(*arguments, **options):
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120, **options
    )
    return done.returncode, done.stdout, done.stderr


def rows_of(path):
    return (
        pa.concat_tables(pq.read_table(file) for file in sorted(path.glob("*.parquet")))
        if path.is_dir()
        else pq.read_table(path)
    )


def start(*arguments):
    return signals.start([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def after_shards(folder, process, count):
    """Wait until so many shards are finished."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        manifest = Manifest.read(folder)
        if manifest is not None and len(manifest.shards) >= count:
            return
        time.sleep(0.005)
    pytest.fail(f"no {count} shards: {process.communicate()[1]}")


def killed_often(model, images, whole, out, kills, seed):
    """Kill a run at random moments, continue it each time, and compare what it leaves with a run left alone."""
    rng = random.Random(seed)  # noqa: S311 - moments, not secrets
    folder, found = Destination(out).folder, 0
    for _ in range(kills):
        process = start("score", model, images, "-o", out, "--resume", *OPTIONS)
        deadline = time.monotonic() + 60
        while not folder.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.25))
        process.kill()
        process.communicate()
        manifest = Manifest.read(folder)
        done = manifest.rows if manifest else 0
        assert done >= found or out.exists()
        found = done
    code, _, err = command("score", model, images, "-o", out, "--resume", *OPTIONS)
    assert code == 3, err
    assert rows_of(out).sort_by("id").equals(whole.sort_by("id"))
    assert verify_output(out, open_source([images])).problems == ()
    assert not list(out.parent.glob(".*"))


@pytest.mark.parametrize("name", ["t.parquet", "shards"])
def test_a_run_killed_again_and_again_leaves_the_same_rows(name, model, images, whole, tmp_path):
    killed_often(model, images, whole, tmp_path / name, 3, seed=len(name))


@pytest.mark.slow
def test_a_run_killed_fifty_times_leaves_the_same_rows(model, images, whole, tmp_path):
    for part in range(10):  # a run of 5,000 images ends before fifty kills
        killed_often(model, images, whole, tmp_path / f"{part}.parquet", 5, seed=part)


def test_small_shards_are_joined_into_large_row_groups(model, some, tmp_path, monkeypatch):
    monkeypatch.setattr("gradscore.runs.joined_file._GROUP_BYTES", 40_000)
    with Scorer.load(model) as scorer:
        score_to_parquet(scorer, open_source([some]), tmp_path / "t.parquet", batch_size=10, shard_rows=10)
    file = pq.ParquetFile(tmp_path / "t.parquet")
    groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    assert sum(groups) == 500
    assert 1 < len(groups) < 20
    assert len(set(groups[:-1])) == 1


def test_rows_are_the_same_in_shards_and_in_one_file(model, some, tmp_path):
    for name in ("t.parquet", "shards"):
        assert command("score", model, some, "-o", tmp_path / name, *OPTIONS)[0] == 3
    assert rows_of(tmp_path / "shards").equals(rows_of(tmp_path / "t.parquet"))
    assert len(list((tmp_path / "shards").glob("*.parquet"))) == 5
    assert len(ScoreTable.read(tmp_path / "shards")) == len(ScoreTable.read(tmp_path / "t.parquet")) == 500
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert sorted(path.name for path in (tmp_path / "shards").glob("*")) == [
        MANIFEST, *(f"part-{n:05d}.parquet" for n in range(5)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_keeps_finished_shards(number, code, word, model, images, whole, tmp_path):
    out = tmp_path / "t.parquet"
    process = start("score", model, images, "-o", out, *OPTIONS)
    after_shards(tmp_path / ".t.parquet.parts", process, 3)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    done = Manifest.read(tmp_path / ".t.parquet.parts").rows
    assert err == f"gradscore: {word}; {done:,} of 5,000 inputs are done: run again with --resume\n"
    assert not out.exists()
    code, _, err = command("score", model, images, "-o", out, *OPTIONS)
    assert code == 1
    assert f"holds {done:,} of 5,000 rows of a run that did not end: continue it with --resume" in err
    with pytest.raises(InputError, match=r"unfinished run: finish it with .*--resume"):
        ScoreTable.read(tmp_path / ".t.parquet.parts")
    code, out_text, err = command("score", model, images, "-o", out, "--resume", "--json", *OPTIONS)
    assert code == 3, err
    summary = json.loads(out_text)
    assert (summary["resumed"], summary["failed"], summary["scored"]) == (done, 5, 4995)
    assert summary["first_error"].startswith("0000.png: ")
    assert rows_of(out).equals(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


@pytest.fixture
def stopped(model, some, tmp_path):
    """A run that ended in the middle of its 500 inputs, as a full disk or a signal ends it."""

    def make(name):
        out, done = tmp_path / name, 0

        def progress(count):
            nonlocal done
            done += count
            if done >= 300:
                raise KeyboardInterrupt

        with Scorer.load(model) as scorer, pytest.raises(KeyboardInterrupt):
            score_to_parquet(scorer, open_source([some]), out, batch_size=50, shard_rows=100, progress=progress)
        assert Manifest.read(Destination(out).folder).rows >= 100
        return out

    return make


@pytest.mark.parametrize("name", ["t.parquet", "shards"])
def test_another_run_is_not_continued(name, stopped, model, some, images, tmp_path, prepared):
    torch.manual_seed(1)
    other = prepared("resumed-other", DigitsCNN().eval(), torch.zeros(2, 1, 8, 8), mean=(0.5,))
    out = stopped(name)
    source = open_source([some])
    with Scorer.load(model) as scorer, Scorer.load(other) as another, Scorer.load(model, backend="reference") as slow:
        for loaded, inputs, size, message in (
            (another, source, 50, r"model was \w{12}…, is now \w{12}…; preprocessing was .*is now .*0\.5"),
            (scorer, source, 51, "batch size was 50, is now 51"),
            (scorer, source.first(499), 50, "inputs was 500, is now 499; listing was "),
            (slow, source, 50, r"backend was \w+, is now reference"),
        ):
            with pytest.raises(MismatchError, match=message):
                score_to_parquet(loaded, inputs, out, batch_size=size, shard_rows=100, resume=True)
        assert score_to_parquet(scorer, source, out, batch_size=50, shard_rows=100, resume=True).resumed >= 100
        again = score_to_parquet(scorer, source, out, batch_size=50, resume=True)
        assert (again.resumed, again.scored, again.failed) == (500, 497, 3)
        with pytest.raises(MismatchError, match="batch size"):
            score_to_parquet(scorer, source, out, batch_size=51, resume=True)
    assert verify_output(out).problems == ()


def test_overwriting_starts_again(stopped, model, some):
    out = stopped("shards")
    with Scorer.load(model) as scorer:
        with pytest.raises(OutputExistsError, match="--resume"):
            score_to_parquet(scorer, open_source([some]), out)
        with pytest.raises(InputError, match="choose one"):
            score_to_parquet(scorer, open_source([some]), out, overwrite=True, resume=True)
        summary = score_to_parquet(scorer, open_source([some]).first(70), out, overwrite=True)
    assert (summary.resumed, len(ScoreTable.read(out))) == (0, 70)


def test_an_interruption_at_the_very_start_leaves_nothing(model, some, tmp_path, monkeypatch):
    class Interrupted(JoinedFile):
        def __init__(self, *given):
            super().__init__(*given)
            raise KeyboardInterrupt

    monkeypatch.setattr("gradscore.runs.shards.JoinedFile", Interrupted)
    with Scorer.load(model) as scorer, pytest.raises(KeyboardInterrupt):
        score_to_parquet(scorer, open_source([some]), tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_others_is_not_touched(model, some, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("mine")
    with Scorer.load(model) as scorer:
        for flags in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(OutputExistsError, match="is a folder: name a file"):
                score_to_parquet(scorer, open_source([some]), tmp_path / "notes", **flags)
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["a.txt"]


def test_what_others_wrote_is_not_continued(model, some, tmp_path):
    for name in ("t.csv", "t.parquet"):
        (tmp_path / name).write_text("mine")
        with Scorer.load(model) as scorer, pytest.raises(OutputExistsError, match="does not say which run wrote it"):
            score_to_parquet(scorer, open_source([some]), tmp_path / name, resume=True)
        assert (tmp_path / name).read_text() == "mine"


def test_a_damaged_shard_is_not_continued(stopped, model, some):
    out = stopped("shards")
    (out / "part-00000.parquet").write_bytes(b"PAR1")
    with (
        Scorer.load(model) as scorer,
        pytest.raises(InputError, match=r"part-00000\.parquet is missing or was changed"),
    ):
        score_to_parquet(scorer, open_source([some]), out, batch_size=50, resume=True)
    (out / MANIFEST).write_text("{")
    with pytest.raises(InputError, match="not the manifest of a scoring run"):
        verify_output(out)


@pytest.mark.parametrize("name", ["t.parquet", "shards"])
def test_two_runs_on_one_output_are_refused(name, model, some, tmp_path):
    out = tmp_path / name
    folder = Destination(out).folder
    folder.mkdir()
    with Scorer.load(model) as scorer:
        with (
            locked(folder, output=out),
            pytest.raises(OutputExistsError, match=rf"another run \(process {os.getpid()}\)"),
        ):
            score_to_parquet(scorer, open_source([some]), out)
        (folder / ".lock").write_text("99999\n")  # of a process that was killed
        assert score_to_parquet(scorer, open_source([some]).first(10), out).scored == 9


@pytest.mark.parametrize(("where", "kept"), [("shard", 300), ("joined", 100), ("end", 500)])
def test_a_full_disk_keeps_finished_shards(model, some, tmp_path, monkeypatch, where, kept):
    begin = Parquet.open

    def full(*_):
        raise OSError(28, "No space left on device")

    def begin_if_there_is_room(self, sink, schema):
        return full() if sink.name.startswith(".part-00003") else begin(self, sink, schema)

    out = tmp_path / "t.parquet"
    monkeypatch.setattr("gradscore.runs.joined_file._GROUP_BYTES", 1)
    with Scorer.load(model) as scorer:
        with monkeypatch.context() as patch:
            patch.setattr(*{
                "shard": (Parquet, "open", begin_if_there_is_room),
                "joined": (JoinedFile, "_write", full),
                "end": (JoinedFile, "close", full),
            }[where])  # fmt: skip
            with pytest.raises(
                GradscoreError, match=rf"cannot write .*t\.parquet: No space left on device; {kept} rows are kept"
            ):
                score_to_parquet(scorer, open_source([some]), out, batch_size=50, shard_rows=100)
        assert not out.exists()
        assert not list(tmp_path.rglob("joined"))
        assert score_to_parquet(scorer, open_source([some]), out, batch_size=50, resume=True).resumed == kept
    assert len(ScoreTable.read(out)) == 500
    assert verify_output(out, open_source([some])).problems == ()


def test_verify_finds_what_is_wrong(model, some, images, stopped, tmp_path):
    with Scorer.load(model) as scorer:
        score_to_parquet(scorer, open_source([some]), tmp_path / "whole", batch_size=50, shard_rows=100)
        score_to_parquet(scorer, open_source([some]), tmp_path / "t.parquet")
    assert verify_output(tmp_path / "whole", open_source([some])).as_dict() == {
        "rows": 500, "failed": 3, "problems": (), "whole": True,
    }  # fmt: skip
    assert verify_output(tmp_path / "t.parquet", open_source([some]).first(499)).problems == (
        f"1 rows belong to no input: {images}/0499.png",
    )
    (more,) = verify_output(tmp_path / "t.parquet", open_source([some, images / "0500.png"])).problems
    assert more == f"1 inputs have no row: {images}/0500.png"
    assert (
        "300 of 500 inputs" in verify_output(stopped("stopped")).problems[0]
        or "of 500 inputs are done" in (verify_output(tmp_path / "stopped").problems[0])
    )
    shard = tmp_path / "whole/part-00001.parquet"
    table = pq.read_table(shard)
    pq.write_table(table.slice(1), shard)
    changed, missing = verify_output(tmp_path / "whole").problems
    assert changed == f"{shard} was changed after its run"
    assert missing == "the 499 rows are not the 500 inputs of the run, each once and in order"
    shard.unlink()
    assert "cannot be read" in verify_output(tmp_path / "whole").problems[0]
    with pytest.raises(InputError, match="no such file"):
        verify_output(tmp_path / "absent")
