"""The study runs end to end in miniature, never tests on fitting rows, and agrees with the README."""

import csv
import gzip
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gradscore import InputError
from tools.paper import training
from tools.paper.concepts import NOISE, Concepts, Sizes, read
from tools.paper.measures import ALL, CORRECT, Fitting, fitting, measured
from tools.paper.report import reproduce
from tools.paper.splits import Repetition

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tools/results/paper"
DATA = ROOT.parent / "shared/data"
FILES = {"tables.md", "tables.csv", "results.json", "figure-1.png", "figure-2.png"}
SUMMARY = {"cnns", "networks", "all_auroc_gain", "all_aupr_out_gain", "correct_auroc_change"}


pictures = cache(read)


@pytest.fixture(scope="module", params=["at hand", pytest.param("scikit-learn", marks=pytest.mark.slow)])
def miniature(request, tmp_path_factory):
    """The study on one CNN, of real pictures where they are at hand: its folder, its options, and what it returned."""
    data = DATA if request.param == "at hand" and DATA.is_dir() else None
    folder = tmp_path_factory.mktemp("paper")
    options = {"data_dir": data, "cnns": 1, "networks": 1, "miniature": True, "cache": folder / "cache", "jobs": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tools.paper.report.pictures.read", pictures)
        yield folder, options, reproduce(output=folder / "out", **options)


def test_everything_is_written(miniature):
    folder, _, whole = miniature
    assert {path.name for path in (folder / "out").iterdir()} == FILES
    assert json.loads((folder / "out/results.json").read_text(encoding="utf-8")) == whole
    assert whole["summary"].keys() >= SUMMARY
    assert {row["table"] for row in whole["rows"]} == {0, 1, 2, 3, 4}
    lines = list(csv.DictReader((folder / "out/tables.csv").read_text(encoding="utf-8").splitlines()))
    concepts = whole["rows"][0]["measures"]
    assert len(lines) == len(whole["rows"]) * len(concepts) * 3
    text = (folder / "out/tables.md").read_text(encoding="utf-8")
    assert all(f"## Table {number}" in text for number in (1, 2, 3, 4))
    for name in ("figure-1.png", "figure-2.png"):
        with Image.open(folder / "out" / name) as picture:
            assert min(picture.size) > 200
            assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_the_numbers_make_sense(miniature):
    _, _, whole = miniature
    auroc = {
        (row["table"], row["row"], row["fitted_on"]): {
            concept: values["auroc"]["mean"] for concept, values in row["measures"].items()
        }
        for row in whole["rows"]
    }
    assert min(whole["test_accuracy"]) > 0.85
    softmax = auroc[1, "max softmax", ""]
    assert softmax[CORRECT] > 80
    assert softmax[ALL] > 70
    assert auroc[1, "all.l2", ""][CORRECT] > softmax[CORRECT] - 15
    known = whole["summary"]["verdict"]["fitted_on"]
    assert auroc[3, "neural network", known]["uniform noise"] > 95
    assert auroc[3, "neural network", known][ALL] > auroc[3, "neural network", "validation"][ALL]
    assert whole["summary"]["all_auroc_gain"] > 0
    assert whole["summary"]["correct_auroc_change"] > -10


def test_a_second_run_trains_and_fits_nothing(miniature, monkeypatch, tmp_path):
    _, options, whole = miniature

    def refuse(*_):
        raise AssertionError("what is cached was done again")

    monkeypatch.setattr(training, "_train", refuse)
    monkeypatch.setattr("tools.paper.scores.prepare", refuse)
    monkeypatch.setattr("tools.paper.recipes.Verdict.fit", refuse)
    again = reproduce(output=tmp_path / "again", **options)
    assert again["rows"] == whole["rows"]
    assert again["summary"] == whole["summary"]


def test_the_command_says_what_is_wrong(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "tools/reproduce_paper.py",
            "--data-dir",
            tmp_path,
            "-o",
            tmp_path / "out",
            "--cnns",
            "1",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "neither emnist-digits" in done.stderr


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), training=st.integers(1, 20), test=st.integers(1, 20), foreign=st.integers(5, 30))
def test_no_picture_is_in_two_parts(seed, training, test, foreign):
    pixels = np.arange(60 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(60, 1, 28, 28)
    sizes = Sizes(training, 10, test, 20, 4)
    concepts = Concepts("digits", pixels, np.arange(60) % 10, {"foreign": pixels[:foreign]}, NOISE, sizes, ("foreign",))
    one = Repetition.draw(concepts, seed)
    parts = [one.training, one.validation, one.test, *one.unknown.values(), *one.known_unknowns.values()]
    ids = [name for part in parts for name in part.ids]
    assert len(ids) == len(set(ids))
    assert [len(part.ids) for part in parts[:3]] == [training, 10, test]
    assert len(one.known_unknowns["foreign"].ids) == 4
    for part in parts[:3]:
        assert [int(name.partition("/")[0]) for name in part.ids] == part.labels.tolist()
    assert Repetition.draw(concepts, seed).training.ids == one.training.ids


def test_too_few_pictures_are_refused():
    concepts = pictures(None, miniature=True)
    few = Concepts("few", concepts.images[:100], concepts.labels[:100], {}, NOISE, concepts.sizes, ("uniform noise",))
    with pytest.raises(InputError, match="few has 100 pictures, but the splits need"):
        Repetition.draw(few, 0)


class Rows:
    """Cases and tables by hand: four right, two wrong predictions of a digit, three unknown pictures."""

    feature_names = ("residual",)
    confidence = np.array([5.0, 6.0, 7.0, 8.0, 1.0, 6.5, 0.0, 2.0, 9.0])
    correct = np.array([True] * 4 + [False] * 5)
    group = np.array([0] * 6 + [1] * 3)
    group_names = ("known", "foreign")

    def __len__(self):
        return len(self.correct)


def test_each_concept_stands_against_all_right_predictions():
    found = measured(Rows.confidence, Rows())
    assert found[CORRECT]["auroc"] == pytest.approx(100 * 6 / 8)
    assert found["foreign"]["auroc"] == pytest.approx(100 * 8 / 12)
    assert found[ALL]["auroc"] == pytest.approx(100 * 14 / 20)


def test_wrong_predictions_of_digits_are_repeated_and_unknown_ones_are_not():
    rows = Rows()
    rows.features = rows.confidence[:, None]
    features, correct = Fitting(rows).weighted(3)
    assert sorted(features[:, 0]) == sorted([*rows.confidence, 1.0, 1.0, 6.5, 6.5])
    assert correct.sum() == 4


def test_fitting_on_what_is_tested_is_an_error(monkeypatch):
    rows = Rows()
    rows.ids, rows.finite = tuple("abcdefghi"), lambda: rows
    monkeypatch.setattr("tools.paper.measures.collect", lambda *_: rows)
    tables = type("Tables", (), {"validation": None})
    with pytest.raises(ValueError, match="9 pictures are both fitted and tested on, such as a"):
        fitting(tables, {}, rows)


def _idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(extent.to_bytes(4, "big") for extent in array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def test_emnist_is_turned_upright_and_has_the_papers_sizes(tmp_path):
    upright = np.random.default_rng(0).integers(0, 256, (6, 28, 28))
    for kind, rows in (("digits-train", slice(0, 3)), ("digits-test", slice(3, 5)), ("letters-train", slice(5, 6))):
        _idx(tmp_path / f"emnist-{kind}-images-idx3-ubyte.gz", upright[rows].swapaxes(1, 2))
        _idx(tmp_path / f"emnist-{kind}-labels-idx1-ubyte.gz", np.arange(6)[rows])
    found = read(tmp_path)
    assert sorted(found.labels.tolist()) == [0, 1, 2, 3, 4]
    assert all((found.images[found.labels == digit, 0] == upright[digit]).all() for digit in range(5))
    assert (found.unknown["EMNIST letters"][0, 0] == upright[5]).all()
    assert (found.sizes.training, found.sizes.validation, found.sizes.test, found.sizes.unknown) == (
        60000,
        20000,
        200000,
        20000,
    )
    assert found.known_unknowns == ("uniform noise",)


def test_polarity_of_the_real_pictures():
    if not DATA.is_dir():
        pytest.skip(f"no data sets in {DATA}")
    concepts = pictures(DATA, miniature=True)
    corners = (slice(None), 0, (0, 0, 27, 27), (0, 27, 0, 27))
    for name, images in {"known": concepts.images, **concepts.unknown}.items():
        assert images.shape[1:] == (1, 28, 28)
        if name in ("known", "Omniglot"):
            assert np.median(images[corners]) == 0, f"{name} is not light on dark"


def test_the_page_on_the_study_tells_the_results():
    whole = json.loads((RESULTS / "results.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs/design/study.md").read_text(encoding="utf-8")
    section = page.partition("In short, in points over maximum softmax:")[2].partition("```{include}")[0]
    told = re.findall(r"([+−]\d+\.\d\d)(?!\d)", section)
    expected = [whole["summary"][key] for key in ("all_auroc_gain", "all_aupr_out_gain", "correct_auroc_change")]
    assert told == [f"{value:+.2f}".replace("-", "−") for value in expected]
    assert f"{whole['summary']['cnns']} CNNs" in page
    assert whole["summary"]["verdict"]["row"] in section
    assert (whole["summary"]["cnns"], whole["summary"]["networks"]) == (10, 5)
    assert {path.name for path in RESULTS.iterdir()} >= FILES
