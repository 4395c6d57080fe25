"""The page that scores pictures in a browser, used as by a person, in headless Chromium."""

import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import onnx
import pytest
from PIL import Image

from models.digits_cnn import DigitsCNN
from tests.support import chromium
from tests.support.example_world import (
    WideCNN,
    assert_agree,
    digits_world,
    installed_examples,
    needs_node,
    node,
    pixels_of,
    reference,
)

WHY = ("", "looks wrong", "looks unknown")
pytestmark = [needs_node, pytest.mark.slow, pytest.mark.network]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return digits_world(tmp_path_factory.getbasetemp(), DigitsCNN)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return installed_examples(tmp_path_factory.getbasetemp())


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def site(world, installed):
    """The address of the page, served as static files."""
    node(installed / "browser/build.mjs", world / "self_scoring.onnx", *sorted(world.glob("*.png"))[:2])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=installed / "browser/site"))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if chromium.EXECUTABLE is None:
        pytest.skip("Chromium is not here")
    with chromium.page(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@pytest.fixture
def page(site, browser):
    """The page with its model and first sample, loaded anew; whatever it complained of by the end fails the test."""
    browser.problems.clear()
    browser.open(f"{site}/index.html")
    browser.wait(
        "document.querySelector('#raw')?.textContent.includes('.png') && !document.querySelector('[aria-busy=true]')"
    )
    yield browser
    assert browser.problems == []


def row_of(page, name):
    """Wait for the verdict on a picture and return it."""
    page.wait(f"JSON.parse(document.querySelector('#raw').textContent).id === {json.dumps(name)}")
    page.wait("!document.querySelector('[aria-busy=true]')")
    return json.loads(page.value("document.querySelector('#raw').textContent"))


def told_share(p):
    return "> 99.9%" if p > 0.9995 else "< 0.1%" if p < 0.0005 else f"{100 * p:.1f}%"


def seen_by(page):
    """Return the pixels [1, 1, 8, 8] that the model was given."""
    code = "Array.from(document.querySelector('#seen').getContext('2d').getImageData(0, 0, 8, 8).data)"
    return np.uint8(page.value(code)).reshape(8, 8, 4)[None, None, ..., 0]


def test_opened_pictures_get_the_same_verdict(page, world, tmp_path, rng):
    Image.fromarray(rng.integers(0, 256, (41, 37, 3), dtype=np.uint8)).save(tmp_path / "large.png")
    for path in (*sorted(world.glob("*.png")), tmp_path / "large.png"):
        page.choose("#open", path)
        row = row_of(page, path.name)
        np.testing.assert_array_equal(seen_by(page), pixels_of(path))
        expected = reference(world, pixels_of(path))[0]
        assert_agree(row, expected)
        shown = ("label", "decision", "why", "p", "p_right", "p_known")
        told = page.value(f"{json.dumps(shown)}.map((id) => document.getElementById(id).textContent)")
        decision = "✓ accept" if expected["accept"] else "✗ reject"
        shares = [told_share(row[name]) for name in ("p_correct", "p_right", "p_known")]
        assert told == [f"digit {expected['label']}", decision, WHY[expected["why"]], *shares]


@pytest.mark.parametrize("does", ["clear", "noise", "stripes", "invert", "turn"])
def test_made_up_pictures_get_the_verdict_on_what_is_seen(page, world, does):
    before = seen_by(page)
    sample = json.loads(page.value("document.querySelector('#raw').textContent"))["id"]
    page.value(f"document.querySelector('[data-does={does}]').click()")
    assert_agree(
        row_of(page, f"{sample}, {does}ed" if does in ("invert", "turn") else does),
        reference(world, seen_by(page))[0],
    )
    wanted = {"clear": 0 * before, "invert": 255 - before, "turn": np.rot90(before, -1, (2, 3))}
    np.testing.assert_array_equal(seen_by(page), wanted.get(does, seen_by(page)))


def test_a_drawing_is_scored_while_it_is_drawn(page, world):
    page.value("document.querySelector('[data-does=clear]').click()")
    row_of(page, "clear")
    left, top, side = page.value(
        "(({ left, top, width }) => [left, top, width])(document.querySelector('#easel').getBoundingClientRect())"
    )
    page.drag([(left + side / 2, top + share * side) for share in (0.15, 0.3, 0.5, 0.7, 0.85)])
    row = row_of(page, "drawing")
    assert seen_by(page)[0, 0, 1:7, 3:5].min() > 100
    assert seen_by(page)[0, 0, :, [0, 7]].max() == 0
    assert_agree(row, reference(world, seen_by(page))[0])


def test_the_bars_are_the_classifiers_own_probabilities(page, world):
    row = json.loads(page.value("document.querySelector('#raw').textContent"))
    bars = page.value(
        "[...document.querySelectorAll('#bars li')].map((one) => [one.innerText.split('\\n'), one.className])"
    )
    assert [texts[0] for (texts, _) in bars] == [f"digit {digit}" for digit in range(10)]
    shares = [float(texts[1].rstrip("%")) / 100 for (texts, _) in bars]
    assert sum(shares) == pytest.approx(1, abs=0.006)
    assert shares[row["label"]] == pytest.approx(row["max_softmax"], abs=6e-4)
    assert [index for index, (_, kind) in enumerate(bars) if kind == "predicted"] == [row["label"]]


def test_samples_are_buttons(page, world):
    names = page.value("[...document.querySelectorAll('#samples img')].map((one) => one.alt)")
    second = sorted(world.glob("*.png"))[1]
    assert names == [f"sample {n}-{path.name}" for n, path in enumerate(sorted(world.glob("*.png"))[:2], 1)]
    page.value("document.querySelectorAll('#samples button')[1].click()")
    assert_agree(row_of(page, f"2-{second.name}"), reference(world, pixels_of(second))[0])


def test_what_cannot_be_used_is_told_and_the_page_lives_on(browser, page, world, tmp_path):
    for name in ("broken.png", "broken.onnx"):
        (tmp_path / name).write_bytes(b"neither this nor that")
    problem = "document.querySelector('#problem:not([hidden])')?.textContent"
    for selector, path, message in (
        ("#open", tmp_path / "broken.png", "decoded"),
        ("#open-model", world / "scoring.onnx", "this model does not score itself"),
        ("#open-model", tmp_path / "broken.onnx", "this is no ONNX file"),
    ):
        page.choose(selector, path)
        page.wait(f"{problem}?.includes({json.dumps(message)})")
    page.choose("#open", sorted(world.glob("*.png"))[0])
    row_of(page, sorted(world.glob("*.png"))[0].name)
    assert page.value(problem) is None
    assert len(browser.problems) == 3  # each as a warning in the console, too
    browser.problems.clear()


def test_another_model_can_be_opened(page, world):
    page.choose("#open-model", world / "self_scoring.onnx")
    assert row_of(page, "blank")["label_name"].startswith("digit ")
    assert "self_scoring.onnx" in page.value("document.querySelector('#facts').textContent")


def test_a_model_that_goes_from_sample_to_sample_says_the_same(page, world, tmp_path_factory):
    wide = digits_world(tmp_path_factory.getbasetemp(), WideCNN)
    assert any(node.op_type == "Scan" for node in onnx.load(wide / "self_scoring.onnx").graph.node)
    page.choose("#open-model", wide / "self_scoring.onnx")
    assert_agree(row_of(page, "blank"), reference(wide, seen_by(page))[0])
    page.choose("#open", wide / "b.png")
    assert_agree(row_of(page, "b.png"), reference(wide, pixels_of(wide / "b.png"))[0])


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1400, True)])
def test_it_fits_phones_and_follows_the_colour_scheme(site, page, width, dark):
    page.open(f"{site}/index.html", width=width, dark=dark)
    page.wait("document.querySelector('#raw')?.textContent.includes('.png')")
    assert page.value("document.documentElement.scrollWidth") <= width
    red = int(page.value("getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[0])
    assert red < 60 if dark else red > 200
