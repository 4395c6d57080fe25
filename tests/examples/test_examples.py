"""The examples run the self-scoring model without gradscore, and give the same results as gradscore."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from gradscore import Scorer, Verdict
from gradscore.inputs.images import normalise, pixels
from gradscore.model.preprocessing import Preprocessing
from gradscore.runtime.session import open_session
from gradscore.triton import check_repository, prototext
from models.digits_cnn import DigitsCNN
from tests.support.example_world import (
    EXAMPLES,
    NODE,
    WideCNN,
    assert_agree,
    digits_world,
    installed_examples,
    needs_node,
    node,
    pixels_of,
    reference,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return digits_world(tmp_path_factory.getbasetemp(), DigitsCNN)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return installed_examples(tmp_path_factory.getbasetemp())


def encoded(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def javascript(code, given):
    """Return what a function body makes of `given`; `self-scoring.js` is in its scope as `model`."""
    module = f"""
        import * as model from {json.dumps((EXAMPLES / "browser/self-scoring.js").as_uri())};
        import {{ readFileSync }} from "node:fs";
        const given = JSON.parse(readFileSync(0));
        console.log(JSON.stringify((() => {{ {code} }})()));
    """
    done = subprocess.run(
        [NODE, "--input-type=module", "--eval", module],
        input=json.dumps(given), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


HOW = (
    {},
    {"interpolation": "bicubic"},
    {"interpolation": "lanczos"},
    {"interpolation": "nearest"},
    {"crop": "center"},
    {"resize": (9,), "crop": "center", "interpolation": "bicubic"},
    {"resize": (10, 12), "crop": "center"},
)


@needs_node
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_become_the_same_numbers_in_javascript(channels, rng):
    code = """
        return given.map(({ picture, how }) => {
            const pixels = model.toPixels(picture, how);
            return [Array.from(pixels), Array.from(model.normalise(pixels, how))];
        });"""
    mean, std = (0.3, 0.4, 0.5)[:channels], (0.2, 0.25, 0.3)[:channels]
    given, expected = [], []
    for index, options in enumerate(HOW * 3):
        how = Preprocessing("image", channels, 7, 6, 1 / 200, mean, std, **options)
        width, height = ((9, 8), (5, 5), (60, 13))[index // len(HOW)]
        rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(rgb).convert("L" if channels == 1 else "RGB")
        expected.append(pixels(encoded(image), how))
        rgba = np.dstack([rgb, np.full((height, width), 255)])
        given.append({"picture": {"data": rgba.ravel().tolist(), "width": width, "height": height}, "how": vars(how)})
    for (found, numbers), wanted, one in zip(javascript(code, given), expected, given, strict=True):
        assert found == wanted.ravel().tolist(), one["how"]
        np.testing.assert_array_equal(np.float32(numbers), normalise(wanted, Preprocessing(**one["how"])).ravel())


@needs_node
def test_javascript_refuses_what_it_cannot_read():
    code = """
        return given.map((bytes) => {
            try { return model.readMetadata(Uint8Array.from(bytes)) } catch (error) { return error.message }
        });"""
    other = b"\x08\x08" + b"\x72\x06\x0a\x01a\x12\x01b"  # ir_version 8, metadata_props {a: b}
    texts = [other, other[:-1], b"\x89PNG", b"\xff" * 9, b""]
    first, *damaged, empty = javascript(code, [list(text) for text in texts])
    assert first == empty == "this model does not score itself: make one that does with `gradscore fuse`"
    assert all(message.startswith("this is no ONNX file") for message in damaged)


@pytest.fixture
def alone(tmp_path):
    """Return a function that runs Python with onnxruntime, NumPy and nothing else installed."""
    for module in (np, onnxruntime):
        place = Path(module.__file__).parent
        for folder in (place, place.with_name(f"{place.name}.libs")):
            if folder.exists():
                (tmp_path / folder.name).symlink_to(folder)
    program = (
        "import importlib.util, runpy, sys; sys.path.append(sys.argv.pop(1)); del sys.argv[0]; "
        "assert not importlib.util.find_spec('gradscore'); runpy.run_path(sys.argv[0], run_name='__main__')"
    )

    def run(*arguments):
        command = [sys.executable, "-I", "-S", "-c", program, str(tmp_path), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_python_needs_onnxruntime_and_nothing_else(world, alone, tmp_path):
    batch = np.concatenate([pixels_of(path) for path in sorted(world.glob("*.png"))])
    np.save(tmp_path / "pixels.npy", batch)
    found = alone(EXAMPLES / "python/score.py", world / "self_scoring.onnx", tmp_path / "pixels.npy")
    assert len(found) == len(batch)
    for row, expected in zip(found, reference(world, batch), strict=True):
        assert_agree(row, expected)
    with Scorer.load(world / "scoring.onnx", features=["recommended"]) as scorer:
        p_correct = Verdict.load(world / "verdict.onnx").apply(scorer.score(batch).features)
    np.testing.assert_allclose([row["p_correct"] for row in found], p_correct, rtol=0, atol=1e-5)
    assert p_correct.max() > 0.8
    assert p_correct.min() < 0.5
    assert [row["why"] for row in found] == [0, 0, 0, 2], "three digits, and noise, which looks unknown"
    np.save(tmp_path / "numbers.npy", normalise(batch, Preprocessing("image", 1, 8, 8)))
    assert alone(EXAMPLES / "python/score.py", world / "self_scoring.onnx", tmp_path / "numbers.npy") == found


GUIDE = (EXAMPLES.parent / "docs/how-to/self-scoring.md").read_text(encoding="utf-8")


def test_the_guides_links_and_python_lines_hold(world):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", GUIDE)
    assert len(links) > 4
    assert not [link for link in links if not (EXAMPLES.parent / "docs/how-to" / link).exists()]
    (block,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=world, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\[\d \d\] \[.*\] \[\w+ +\w+\] \[[012] [012]\]\n", done.stdout)


@needs_node
@pytest.mark.slow
@pytest.mark.network
def test_the_guides_lines_run(world, installed, tmp_path):
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("node_modules", "site"))
    (tmp_path / "demo/images/test/3").mkdir(parents=True)
    for name in ("scoring.onnx", "verdict.onnx"):
        shutil.copy(world / name, tmp_path / "demo")
    shutil.copy(world / "a.png", tmp_path / "demo/images/test/3/0001.png")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    lines = "".join(re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL))
    done = subprocess.run(
        ["/bin/bash", "-ec", lines], cwd=tmp_path, env={**os.environ, "PATH": path},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"label_name"') == 3
    assert (tmp_path / "examples/browser/site/samples/1-0001.png").exists()
    assert (tmp_path / "models/digits/config.pbtxt").exists()


def test_the_guides_cpp_lines_run(world, tmp_path):
    """Compiles them with the headers in ONNXRUNTIME_INCLUDE (Debian: libonnxruntime-dev), against the wheel's library."""
    headers = Path(os.environ.get("ONNXRUNTIME_INCLUDE", "/usr/include/onnxruntime"))
    libraries = sorted(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
    compiler = shutil.which("c++")
    if not (headers / "onnxruntime_cxx_api.h").exists() or not libraries or compiler is None:
        pytest.skip(
            "no C++ compiler, no headers of ONNX Runtime (set ONNXRUNTIME_INCLUDE), or no library beside Python's"
        )
    guide = (EXAMPLES.parent / "docs/how-to/self-scoring.md").read_text()
    (tmp_path / "score.cpp").write_text(re.search(r"```cpp\n(.*?)```", guide, re.DOTALL)[1])
    build = [compiler, "-std=c++17", "-isystem", headers, "score.cpp", libraries[-1], "-o", "score"]
    subprocess.run(build, cwd=tmp_path, check=True)
    (tmp_path / "libonnxruntime.so.1").symlink_to(libraries[-1])
    shutil.copy(world / "self_scoring.onnx", tmp_path)
    run = subprocess.run(
        ["./score"], cwd=tmp_path, env=os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    session = open_session(tmp_path / "self_scoring.onnx")
    columns = session.run(["label", "p_correct", "accept", "why"], {"input": np.zeros((2, 1, 8, 8), np.float32)})
    for line, label, probability, accept, why in zip(run.stdout.splitlines(), *columns, strict=True):
        found = line.split()
        assert (int(found[0]), bool(int(found[2])), int(found[3])) == (label, accept, why)
        assert float(found[1]) == pytest.approx(probability, abs=1e-5)


@pytest.mark.parametrize("options", [[], ["--provider", "CUDAExecutionProvider"]])
def test_fuse_puts_the_model_into_a_triton_repository(options, world, tmp_path):
    arguments = ["fuse", "scoring.onnx", "--verdict", "verdict.onnx", "-o", tmp_path / "digits.onnx", *options]
    command = [
        sys.executable,
        "-c",
        "from gradscore.cli import main; main()",
        *arguments,
        "--triton",
        tmp_path / "models",
    ]
    done = subprocess.run(command, cwd=world, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"wrote {tmp_path / 'models/digits'}" in done.stderr
    check_repository(tmp_path / "models/digits")
    nodes = onnx.load(tmp_path / "digits.onnx").graph.node
    assert any(node.name.startswith("device/") for node in nodes) == bool(options)
    assert (tmp_path / "models/digits/1/model.onnx").read_bytes() == (tmp_path / "digits.onnx").read_bytes()
    config = prototext.parse((tmp_path / "models/digits/config.pbtxt").read_text())
    session = open_session(tmp_path / "models/digits/1/model.onnx")
    found = session.run(None, {config["input"][0]["name"][0]: np.zeros((5, 1, 8, 8), np.float32)})
    for told, output, value in zip(config["output"], session.get_outputs(), found, strict=True):
        dims = told["reshape"][0]["shape"] if "reshape" in told else told["dims"]
        assert (told["name"][0], value.shape) == (output.name, (5, *map(int, dims)))


@needs_node
def test_javascript_reads_what_the_model_says_about_itself(world):
    code = "return model.readMetadata(Uint8Array.from(atob(given), (letter) => letter.charCodeAt()));"
    content = (world / "self_scoring.onnx").read_bytes()
    about = open_session(content).get_modelmeta().custom_metadata_map["gradscore"]
    assert javascript(code, base64.b64encode(content).decode()) == json.loads(about)


@needs_node
@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("architecture", [DigitsCNN, WideCNN])
def test_node_finds_the_same(architecture, installed, tmp_path_factory):
    world = digits_world(tmp_path_factory.getbasetemp(), architecture)
    paths = sorted(world.glob("*.png"))
    lines = node(installed / "node/score.mjs", world / "self_scoring.onnx", *paths).splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == [str(path) for path in paths]
    for row, path in zip(rows, paths, strict=True):
        assert_agree(row, reference(world, pixels_of(path))[0])
