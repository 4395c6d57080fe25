"""The report: its numbers against the evaluation, its page in a browser, and its content."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gradscore import report
from gradscore.comparing.cases import collect
from gradscore.errors import GradscoreError, InputError, OutputExistsError
from gradscore.inputs.entries import Listing
from gradscore.inputs.sources import ArrayRow, ImageFile, Source, open_source
from gradscore.metrics.evaluation import evaluate
from gradscore.model.metadata import LAYER_STATISTICS
from gradscore.report import pictures, scales, style
from gradscore.report.feature_figures import HEAD
from gradscore.report.figures import FIGURES
from gradscore.tables.table import ScoreTable, schema, to_batch
from gradscore.verdict import Verdict

LAYERS = ("conv1", "blocks.0.attention.<b>$x$</b>", "all")
NAMES = (
    *(f"{layer}.{statistic}" for layer in LAYERS for statistic in LAYER_STATISTICS),
    *("entropy", "max_softmax", "residual"),
)
CLASSES = ["cat", "<script>alert(1)</script> & $5_2$"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def table(count, seed, *, folders=True, doubt=0.0, spoilt=()):
    rng = np.random.default_rng(seed)
    residual = 1 / (1 + np.exp(3 - doubt - 2 * rng.normal(size=count)))
    label = rng.integers(0, 2, count)
    truth = np.where(rng.random(count) < residual, 1 - label, label)
    signs = np.array([1, 1, -1, 1, rng.choice([-1, 1]), 1, 0, 0])
    shape = rng.normal(size=(count, 3, 8))
    rows = np.where(signs != 0, signs * residual[:, None, None] * np.exp(8 + shape), shape).reshape(count, -1)
    rows = np.column_stack([rows, residual**0.9, 1 - residual, residual])
    rows[list(spoilt), 3] = np.nan
    ids = [f"{'ab'[truth[i]]}/{i}.png" if folders else f"{i}.png" for i in range(count)]
    metadata = {"model_fingerprint": "ab" * 32, "class_names": CLASSES}
    batch = to_batch(schema(NAMES, metadata), ids=ids, labels=label, features=rows)
    return ScoreTable.of(pa.Table.from_batches([batch]))


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    known = table(240, 0, spoilt=(5,))
    labels = tmp_path_factory.mktemp("labels") / "labels.csv"
    rows = (f"{name},{'ab'.index(name[0])}" for name in known.ids())
    labels.write_text("id,label\n" + "\n".join(rows))
    unknown = {"noise": table(90, 1, folders=False, doubt=2.0), "letters & co": table(60, 2, folders=False, doubt=1.0)}
    return collect(known, unknown, label_file=labels)


@pytest.fixture(scope="module")
def verdict(cases):
    return Verdict.fit(
        cases.features, cases.correct, feature_names=NAMES, model_fingerprint="ab" * 32, method="ridge", folds=2
    )


@pytest.fixture(scope="module")
def content(cases, verdict):
    return report.build(cases, {"mine": verdict}, resamples=20)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (90, 9, 7, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def page(content, pixels, tmp_path_factory):
    """A page whose noise rows have pictures."""
    folder = tmp_path_factory.mktemp("noise")
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index}.png")
    path = tmp_path_factory.mktemp("report") / "report.html"
    report.write_page(content, path, sources={"noise": open_source([folder])}, title="A & B <i>")
    return path


# ---------------------------------------------------------------- numbers


def test_numbers_are_those_of_the_evaluation(content, cases, verdict):
    numbers = json.loads(json.dumps(content.as_dict(), allow_nan=False))
    finite = np.isfinite(cases.features).all(axis=1)
    p, right = verdict.apply(cases.features[finite]), cases.correct[finite]
    assert numbers["rows"] == finite.sum() == 389
    assert numbers["left_out"] == {"error": 0, "not_finite": 1}
    assert numbers["confidences"]["mine"]["auroc"] == evaluate(p, right).auroc
    assert set(numbers["confidences"]["mine"]["groups"]) == {"known", "noise", "letters & co"}
    residual = cases.features[finite, -1]
    assert numbers["feature_auroc"]["residual"] == evaluate(residual, right).auroc
    assert numbers["threshold"] == verdict.threshold
    answers, known = numbers["confidences"]["mine"]["overview"], cases.group[finite] == 0
    assert answers["auroc_wrong"] == evaluate(p[known], right[known]).auroc
    assert answers["auroc_unknown"] == evaluate(p, known).auroc
    assert answers["precision"] == pytest.approx(right[p >= verdict.threshold].mean())


def test_decisions_count_what_the_threshold_does(content, verdict):
    accepted = content.p >= verdict.threshold
    found = {one.group: one for one in content.decisions()}
    for index, name in enumerate(content.cases.group_names):
        rows = content.cases.group == index
        expected = (rows.sum(), content.cases.correct[rows].sum(), accepted[rows].sum())
        assert (found[name].rows, found[name].right, found[name].accepted) == expected
        assert found[name].accepted_right == (accepted & content.cases.correct & rows).sum()


def test_reliability_is_what_the_ece_is_made_of(content):
    for name in ("mine", "max_softmax"):
        mean, share, count = content.reliability(name)
        assert count.sum() == len(content.cases)
        ece = np.sum(np.abs(mean - share) * count) / count.sum()
        assert ece == pytest.approx(content.comparison[name].pooled.ece, abs=1e-12)


def test_galleries_hold_the_extremes(content):
    p, cases = content.p, content.cases
    known = cases.group == 0
    assert p[content.doubtful].tolist() == sorted(p[known])[:12]
    assert known[content.doubtful].all()
    assert p[content.mistakes].tolist() == sorted(p[~cases.correct], reverse=True)[:12]
    assert not cases.correct[content.mistakes].any()


def test_without_a_verdict_maximum_softmax_is_shown_and_nothing_decided(cases, tmp_path):
    content = report.build(cases, {}, resamples=0)
    assert (content.chosen, content.threshold, content.decisions()) == ("max_softmax", None, [])
    report.write_page(content, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "What the verdict decides" not in text
    assert "✓ accept" not in text


# ---------------------------------------------------------------- axes and colours


@pytest.mark.parametrize("sign", [1, -1])
def test_values_over_decades_get_a_logarithmic_axis(sign):
    values = sign * np.logspace(-12, 3, 1000)
    scale = scales.Scale.of(values)
    places, labels = scale.ticks()
    assert 2 <= len(labels) <= 3
    assert all(label.startswith("−") == (sign < 0) for label in labels if label != "0")
    for place, label in zip(places, labels, strict=True):
        value = float(label.replace("−", "-"))
        assert scale(np.array([value]))[0] == pytest.approx(place)
        assert scale.low <= place <= scale.high
    transformed = scale(values)
    assert np.corrcoef(transformed, np.log10(np.abs(values)))[0, 1] * sign > 0.99


def test_other_axes():
    narrow = scales.Scale.of(np.linspace(0.6, 1.0, 100))
    assert narrow.unit is None
    assert [float(label) for label in narrow.ticks()[1]] == pytest.approx(narrow.ticks()[0])
    both = scales.Scale.of(np.r_[-np.logspace(-3, 3, 50), np.logspace(-3, 3, 50)])
    assert both(np.array([-1.0, 0.0, 1.0])).tolist() == pytest.approx(
        [-both(np.array([1.0]))[0], 0, both(np.ones(1))[0]]
    )
    for values in (np.zeros(5), np.full(5, 3.0), np.array([0.0, 0.0, 1e-300]), np.array([1e300, -1e300, 1.0])):
        scale = scales.Scale.of(values)
        assert scale.low < scale.high
        assert np.isfinite(scale(values)).all()
        scale.ticks()


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_are_told_apart_from_the_page_and_from_each_other():
    for role, (light, dark) in style.ROLES.items():
        if role != "grid":
            least = (
                4.5 if role in ("text", "muted") else 2.7
            )  # WCAG asks 4.5 of text; lines are also told by their dashes
            assert contrast(light, "#f6f7f9") >= least, role
            assert contrast(dark, "#1e2329") >= least, role
    assert len({light for light, _ in style.ROLES.values()}) == len(style.ROLES)


def test_a_figure_in_the_page_has_variables_for_colours_and_ids_of_its_own(content):
    with style.drawing():
        drawn = FIGURES["roc"](content)
    one, two = (style.to_svg(drawn.figure, name) for name in ("one", "two"))
    for light, _ in style.ROLES.values():
        assert light not in one.lower()
    assert "var(--series-1)" in one
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', one))
    assert used
    assert used <= ids[0]


# ---------------------------------------------------------------- pictures


def shown(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))))


def test_pictures_of_files_and_arrays(tmp_path, pixels):
    Image.fromarray(pixels[0]).save(tmp_path / "small.png")
    np.testing.assert_array_equal(shown(pictures.picture(ImageFile("small.png", tmp_path / "small.png"))), pixels[0])
    Image.new("L", (900, 300), 77).save(tmp_path / "wide.png")
    wide = shown(pictures.picture(ImageFile("wide.png", tmp_path / "wide.png")))
    assert wide.shape == (43, 128, 3)
    assert (wide == 77).all()
    for rows in (pixels.transpose(0, 3, 1, 2), pixels):
        np.testing.assert_array_equal(shown(pictures.picture(ArrayRow("a#3", rows, 3))), pixels[3])
    grey = pixels[..., 0]
    for rows in (grey, grey[:, None]):
        np.testing.assert_array_equal(shown(pictures.picture(ArrayRow("a#3", rows, 3))), grey[3])
    stretched = shown(pictures.picture(ArrayRow("a#0", np.linspace(-1, 1, 12).reshape(1, 3, 4), 0)))
    assert (stretched.min(), stretched.max()) == (0, 255)
    constant = shown(pictures.picture(ArrayRow("a#0", np.ones((1, 3, 4)), 0)))
    assert (constant == 0).all()


def test_pictures_of_archives_and_tables(tmp_path, pixels):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(3):
        Image.fromarray(pixels[index]).save(folder / f"{index}.png")
    places = [Path(shutil.make_archive(str(tmp_path / kind), kind, folder)) for kind in ("zip", "tar", "gztar")]
    rows = [{"bytes": (folder / f"{index}.png").read_bytes(), "path": f"{index}.png"} for index in range(3)]
    pq.write_table(pa.table({"image": rows}), tmp_path / "images.parquet")
    for place in (*places, tmp_path / "images.parquet"):
        found = {entry.id[-5:]: shown(pictures.picture(entry)) for entry in open_source([place])}
        for index, wanted in enumerate(pixels[:3]):
            name = f"uet#{index}" if place.suffix == ".parquet" else f"{index}.png"
            np.testing.assert_array_equal(found[name], wanted)


def test_a_turned_photograph_stands_upright_in_its_own_aspect(tmp_path):
    pixels = np.full((60, 20, 3), 200, dtype=np.uint8)
    pixels[:30] = 30
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(shown(pictures.picture(ImageFile("t", tmp_path / "turned.png"))), pixels)


def test_only_inputs_of_the_galleries_are_looked_up(content):
    class Counted(Listing):
        made = 0

        def __len__(self):
            return 10_000

        def ids(self):
            return (f"{index}.png" for index in range(10_000))

        def entry(self, index):
            self.made += 1
            return ArrayRow(f"{index}.png", np.zeros((1, 4, 4)), 0)

    source = Source(Counted())
    found = pictures.find({"noise": source}, content.shown())
    noise = {key for key in content.shown() if key[0] == "noise"}
    assert noise
    assert set(found) == noise
    assert all(entry.id == name for (_, name), entry in found.items())
    assert source.entries.made == len(noise)


def test_inputs_without_a_picture(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG broken")
    assert pictures.picture(ImageFile("bad.png", tmp_path / "bad.png")) is None
    assert pictures.picture(ImageFile("gone.png", tmp_path / "gone.png")) is None
    assert pictures.picture(ArrayRow("a#0", np.ones((1, 20), np.float32), 0)) is None
    assert pictures.picture(ArrayRow("a#0", np.full((1, 4, 4), np.nan), 0)) is None


# ---------------------------------------------------------------- the page


class Reader(HTMLParser):
    """Collects tags, the text outside of styles, and attributes that load something."""

    def __init__(self):
        super().__init__()
        self.tags, self.words, self.loads, self.ids, self.open = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open.append(tag)
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.loads += [values[name] for name in ("src", "href", "srcset", "xlink:href") if name in values]

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)


@pytest.fixture(scope="module")
def read(page):
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader


def test_the_page_loads_nothing_and_runs_nothing(page, read):
    assert "script" not in read.tags
    assert "i" not in read.tags
    assert all(place.startswith(("data:", "#")) for place in read.loads)
    assert "url(http" not in page.read_text(encoding="utf-8")
    assert len(read.ids) == len(set(read.ids))


def test_the_page_has_every_figure_table_and_picture(read, content):
    assert read.tags.count("figure") == len(FIGURES) + len(LAYERS) + 1
    assert set(FIGURES) <= set(read.ids)
    assert read.tags.count("details") == len(LAYERS) + 1
    noise = [row for row in content.mistakes if content.cases.group_names[content.cases.group[row]] == "noise"]
    assert noise
    assert read.tags.count("img") == len(noise)
    text = " ".join("".join(read.words).split())
    assert "A & B <i>" in text
    assert CLASSES[1] in text
    assert HEAD in text
    for name, result in content.comparison.items():
        assert f"{100 * result.pooled.auroc:.2f}" in text
        assert name in text
    right = int(content.cases.correct.sum())
    assert f"Of 389 predictions, 150 of them inputs of no known class, {right} are right ({right / 389:.1%})." in text
    answers = content.overview["mine"]
    for share in (answers.auroc_wrong, answers.auroc_unknown, answers.coverage, answers.precision):
        assert f"{100 * share:.2f}" in text
    assert f"of {answers.known} known rows ({answers.wrong} wrong). 150 unknown rows." in text
    assert "1 rows are left out: 0 with an error, 1 with NaN or Inf in a feature." in text


def test_the_page_is_the_same_every_time(content, tmp_path):
    for name in ("a", "b"):
        report.write_page(content, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_many_layers_are_cut_and_counted(content, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MOST_LAYERS", 2)
    monkeypatch.setattr("gradscore.report.feature_figures.MOST_ROWS", 1)
    report.write_page(content, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.count("<details>") == 2
    assert "2 weaker layers have no figure here" in text
    assert "Only the 1 strongest of 3 layers are shown." in text


def browse(page, tmp_path, *flags):
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0", *flags, page.as_uri(),
        ],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (Debian: apt-get install chromium)")
def test_a_browser_shows_it_without_complaint(page, tmp_path):
    faulty = tmp_path / "faulty.html"
    faulty.write_text('<script>nothing.there()</script><meta http-equiv="Content-Security-Policy" content="x-y z">')
    assert browse(faulty, tmp_path, "--dump-dom")[1], "the check cannot see errors"
    dom, complaints = browse(page, tmp_path, "--dump-dom")
    assert complaints == []
    for name in FIGURES:
        assert re.search(rf'<figure id="{name}">.*?<svg.*?<path.*?</figure>', dom, re.DOTALL), name
    for width in (400, 1400):
        shot = tmp_path / f"{width}.png"
        browse(page, tmp_path, f"--window-size={width},1200", f"--screenshot={shot}", "--hide-scrollbars")
        image = np.asarray(Image.open(shot).convert("L"))
        assert image.shape == (1200, width)
        assert 0.01 < np.mean(image < 128) < 0.3, "text and figures cover some of the page"
        assert (image[:, -6:] > 200).all(), "nothing sticks out to the right"


# ---------------------------------------------------------------- files and refusals


def test_names_too_long_lose_their_beginning():
    from gradscore.report.feature_figures import _short

    assert _short("conv1.l2", 8) == "conv1.l2"
    assert _short("blocks.0.conv1.l2", 8) == "…onv1.l2"


def test_figures_as_png(content, tmp_path):
    files = report.write_pngs(content, tmp_path / "new/png")
    assert {file.name for file in files} == {f"{name}.png" for name in FIGURES}
    for file in files:
        with Image.open(file) as image:
            assert image.width >= 700
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
    with pytest.raises(OutputExistsError, match="--overwrite"):
        report.write_pngs(content, tmp_path / "new/png")


def test_refusals(content, cases, page, tmp_path, monkeypatch):
    with pytest.raises(OutputExistsError, match="--overwrite"):
        report.write_page(content, page)
    with pytest.raises(InputError, match="pictures are given for 'nose'; groups are: known, noise, letters & co"):
        report.write_page(content, tmp_path / "r.html", sources={"nose": Source([])})
    with pytest.raises(InputError, match="unknown convention 'mine'"):
        report.build(cases, {}, convention="mine")
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    with pytest.raises(GradscoreError, match=r'needs jinja2 and matplotlib: run `pip install "gradscore\[report\]"`'):
        report.write_page(content, tmp_path / "r.html")
