"""Shared by the tests of examples: a self-scoring classifier of digits, installed examples, expected rows."""

import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from gradscore import Scorer, Verdict, export_classifier, fuse, prepare
from gradscore.inputs.images import normalise
from gradscore.model.preprocessing import Preprocessing
from gradscore.runtime.session import open_session

EXAMPLES = Path(__file__).parents[2] / "examples"
SCALARS = ("label", "p_correct", "p_right", "p_known", "accept", "why", "entropy", "max_softmax", "residual")
NODE, NPM = shutil.which("node"), shutil.which("npm")
needs_node = pytest.mark.skipif(NODE is None, reason="Node.js (`node`) is not here")


class WideCNN(nn.Sequential):
    """A layer so large that a Scan computes its gradients one sample at a time."""

    def __init__(self):
        pooled = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        wide = nn.Conv2d(16, 1024, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        super().__init__(*pooled, *wide, nn.Linear(1024, 10))


EXTRA = {WideCNN: ["*"]}  # a verdict may leave out the wide layer


@cache
def digits_world(base, architecture):
    """Return a folder with self_scoring.onnx, the files that it was made of, and images to score."""
    folder = base / f"{architecture.__name__}-world"
    folder.mkdir()
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    export_classifier(
        _trained(architecture, images[:600], digits.target[:600]), torch.zeros(2, 1, 8, 8), folder / "classifier.onnx",
        class_names=[f"digit {digit}" for digit in range(10)],
    )  # fmt: skip
    prepare(folder / "classifier.onnx", folder / "scoring.onnx")
    noise = np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8)
    with Scorer.load(folder / "scoring.onnx", features=["recommended"]) as scorer:
        scores = scorer.score(np.concatenate([images[600:1000], noise]))
        right = np.append(scores.label[:400] == digits.target[600:1000], np.zeros(200, bool))
        verdict = Verdict.fit(
            scores.features, right, feature_names=scorer.feature_names, model_fingerprint=scorer.fingerprint,
            kind=np.repeat([-1, 0], [400, 200]), label=scores.label, method="two-heads",
        )  # fmt: skip
    fuse(folder / "scoring.onnx", folder / "self_scoring.onnx", verdict=verdict, features=EXTRA.get(architecture, ()))
    verdict.save(folder / "verdict.onnx")
    for name, image in zip(("a", "b", "c", "noise"), [*images[1000:1003], noise[0]], strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder


def _trained(architecture, images, labels):
    torch.manual_seed(0)
    classifier = architecture()
    inputs = torch.from_numpy(images[:, None].astype(np.float32) / 255)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=3e-3)
    for _ in range(5):
        for rows in torch.randperm(len(inputs)).split(32):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(classifier(inputs[rows]), torch.from_numpy(labels)[rows]).backward()
            optimizer.step()
    return classifier.eval()


@cache
def installed_examples(base):
    """Return a copy of the examples with their locked packages; skip the test if npm cannot install them."""
    if NPM is None:
        pytest.skip("npm is not here")
    probe = subprocess.run([NPM, "view", "pngjs@7.0.0", "version"], capture_output=True, check=False, timeout=60)
    if probe.returncode:
        pytest.skip("npm's registry is out of reach")
    folder = base / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("node_modules", "site"))
    for place in ("node", "browser"):
        subprocess.run([NPM, "ci", "--no-audit", "--no-fund"], cwd=folder / place, check=True, timeout=300)
    return folder


def node(*arguments):
    done = subprocess.run([NODE, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def reference(world, pixels):
    """Return rows for uint8 pixels [B, 1, 8, 8], computed in this process."""
    session = open_session((world / "self_scoring.onnx").read_bytes())
    columns = session.run(
        list(SCALARS), {session.get_inputs()[0].name: normalise(pixels, Preprocessing("image", 1, 8, 8))}
    )
    return [
        dict(zip(SCALARS, (value.item() for value in values), strict=True)) for values in zip(*columns, strict=True)
    ]


def pixels_of(path):
    return np.asarray(Image.open(path).convert("L").resize((8, 8), Image.Resampling.BILINEAR))[None, None]


def assert_agree(found, expected):
    codes = ("label", "accept", "why")
    assert {name: found[name] for name in codes} == {name: expected[name] for name in codes}
    assert found["label_name"] == f"digit {expected['label']}"
    for name in set(SCALARS) - set(codes):
        assert found[name] == pytest.approx(expected[name], abs=1e-4), name
