"""The page on use in production: its code runs, and its service answers."""

import importlib.util
import io
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gradscore import MismatchError, Scorer, Verdict, export_classifier, prepare
from models.digits_cnn import DigitsCNN

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/production.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Return files with the demo's names, of a classifier without training: the code only needs the files."""
    folder = tmp_path_factory.mktemp("embedding") / "demo"
    folder.mkdir()
    torch.manual_seed(0)
    export_classifier(DigitsCNN().eval(), torch.zeros(2, 1, 8, 8), folder / "classifier.onnx")
    prepare(folder / "classifier.onnx", folder / "scoring.onnx")
    rng = np.random.default_rng(0)
    with Scorer.load(folder / "scoring.onnx", features=["recommended"]) as scorer:
        scores = scorer.score(rng.integers(0, 256, (120, 1, 8, 8), dtype=np.uint8))
        correct = scores.entropy + rng.normal(0, 0.01, 120) < np.median(scores.entropy)
        Verdict.fit(
            scores.features, correct, feature_names=scorer.feature_names, model_fingerprint=scorer.fingerprint
        ).save(folder / "verdict.onnx")
    return folder


@pytest.fixture(scope="module")
def app(demo):
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    spec = importlib.util.spec_from_file_location("service_app", ROOT / "examples/service/app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_lines_of_the_page_run(demo):
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
        cwd=demo.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_what_the_page_links_to_is_there():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE)
    assert [link for link in links if not (ROOT / "docs/how-to" / link).exists()] == []


def test_the_service_answers_as_the_scorer_does(app, demo):
    from fastapi.testclient import TestClient

    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8), dtype=np.uint8)
    with Scorer.load(demo / "scoring.onnx", features=["recommended"]) as scorer:
        scores = scorer.score(pixels)
        names = [scorer.metadata.label_name(label) for label in scores.label.tolist()]
    wanted = Verdict.load(demo / "verdict.onnx").apply(scores.features)
    with TestClient(app.service(demo / "scoring.onnx", demo / "verdict.onnx")) as client, ThreadPoolExecutor(8) as pool:
        answers = [answer.json() for answer in pool.map(lambda one: client.post("/score", content=png(one)), pixels)]
        assert [answer["label"] for answer in answers] == scores.label.tolist()
        assert [answer["name"] for answer in answers] == names
        np.testing.assert_allclose([answer["p_correct"] for answer in answers], wanted, rtol=1e-4, atol=1e-6)
        counters = dict(re.findall(r"^(\w+) ([\d.e-]+)$", client.get("/metrics").text, re.MULTILINE))
        assert float(counters["gradscore_inputs_total"]) == 24
        assert 1 <= float(counters["gradscore_batches_total"]) <= 24
        broken = client.post("/score", content=b"text")
        assert (broken.status_code, broken.json()["detail"][:32]) == (422, "not an image of a known format (")
        assert client.post("/score", content=bytes(app.LARGEST + 1)).status_code == 413


def test_a_service_of_files_that_do_not_belong_together_does_not_start(app, demo, tmp_path):
    from fastapi.testclient import TestClient

    prepare(demo / "classifier.onnx", tmp_path / "other.onnx", mean=(0.5,))
    with (
        pytest.raises(MismatchError, match="not fitted to scores of"),
        TestClient(app.service(tmp_path / "other.onnx", demo / "verdict.onnx")),
    ):
        pass
