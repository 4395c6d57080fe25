"""The site is true: its lines run, and it tells of every command, public name, file format, rule and exit code."""

import ast
import importlib
import json
import re
import sys
from dataclasses import fields
from pathlib import Path

import gradscore_kernels
import onnx
import pyarrow.parquet as pq
import pytest

import gradscore
from gradscore.inputs.sources import CONTAINERS
from gradscore.scoring.detector_columns import DETECTOR_COLUMNS
from gradscore.scoring.extra_features import EXTRA_FEATURES
from gradscore.tables.manifest import Manifest, Shard
from gradscore.unknowns.kinds import KINDS
from gradscore.verdict import AUTO, METHODS, RECIPES, TRANSFORMS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
ELSEWHERE = {
    "how-to/self-scoring.md"
}  # tests/…/test_examples.py runs its lines, which need Node.js and a package index


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if BLOCK.search(text) and name not in ELSEWHERE])
def test_lines_run(page, run_block):
    for language, text in BLOCK.findall(PAGES[page]):
        run_block(language, text)


def test_every_page_is_in_a_table_of_contents():
    listed = {f"{name}.md" for name in re.findall(r"^([a-z-]+(?:/[a-z-]+)?)$", PAGES["index.md"], re.MULTILINE)}
    assert listed == set(PAGES) - {"index.md"}


@pytest.fixture
def extension(monkeypatch):
    """Return a function that imports one of the site's extensions."""
    monkeypatch.syspath_prepend(DOCS / "_ext")

    def load(name):
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    return load


def test_every_command_is_on_the_site(extension):
    names = [name for name, _ in extension("commands").every_command()]
    assert {"gradscore prepare", "gradscore bench kernels"} <= set(names)
    assert "```{commands}" in PAGES["reference/cli.md"]
    told = "\n".join(PAGES.values())
    assert not [name for name in names if name not in told]


def test_every_command_has_a_purpose(extension):
    for name, command in extension("commands").every_command():
        assert command.help, name


def test_every_rule_states_its_algebra(extension):
    rules = extension("rules")
    tables = {name: content for name, _, content in rules.tables("gradscore.graph")}
    assert len(tables) >= 4
    assert "Conv" in next(content for name, content in tables.items() if name.endswith("LAYER_RULES"))


def test_every_public_name_is_on_the_api_page():
    page = PAGES["reference/api.md"]
    assert not [name for name in gradscore.__all__ if f"gradscore.{name}" not in page]


def test_every_public_name_of_the_kernels_has_a_docstring():
    assert "automodule:: gradscore_kernels" in PAGES["reference/kernels.md"]
    objects = {name: getattr(gradscore_kernels, name) for name in gradscore_kernels.__all__}
    assert not [name for name, one in objects.items() if callable(one) and not one.__doc__]


def test_every_error_is_explained():
    errors = [name for name in gradscore.__all__ if name.endswith("Error")]
    assert not [name for name in errors if f"`{name}`" not in PAGES["reference/errors.md"]]


@pytest.mark.parametrize("page", ["reference/errors.md", "how-to/large-runs.md"])
def test_every_exit_code_is_explained(page):
    assert re.findall(r"^\| (\d+) \|", PAGES[page], re.MULTILINE) == ["0", "1", "2", "3", "130", "143"]


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("reference/features.md", EXTRA_FEATURES),
        ("reference/features.md", DETECTOR_COLUMNS),
        ("how-to/choose-a-method.md", (AUTO, *RECIPES, *METHODS)),
        ("how-to/unknown-inputs.md", KINDS),
    ],
)
def test_every_choice_is_explained(page, names):
    assert not [name for name in names if f"| `{name}`" not in PAGES[page]]


def test_every_transform_and_container_is_named():
    assert not [name for name in TRANSFORMS if name.replace("-", " ") not in PAGES["how-to/choose-a-method.md"]]
    told = PAGES["how-to/inputs.md"]
    assert not [suffix for suffix in CONTAINERS if suffix not in told and "idx" not in suffix and "ubyte" not in suffix]


def keys_of(value):
    """Yield the keys of a JSON value's objects, at any depth."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from keys_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from keys_of(item)


def metadata_of(path):
    (text,) = [entry.value for entry in onnx.load(path).metadata_props if entry.key == "gradscore"]
    return json.loads(text)


def test_every_key_of_the_files_is_explained(demo, run_block, checkout):
    run_block("bash", "gradscore fuse demo/scoring.onnx --verdict demo/verdict.onnx -o self_scoring.onnx")
    scoring = metadata_of(demo / "demo/scoring.onnx")
    plain = {**scoring, "layers": [{**one, "reductions": []} for one in scoring["layers"]], "backsteps": []}
    reductions = {key for layer in scoring["layers"] for one in layer["reductions"] for key in one}
    table = pq.read_schema(demo / "demo/test.parquet")
    manifest = json.loads(pq.read_metadata(demo / "demo/test.parquet").metadata[b"gradscore.manifest"])
    found = {
        *keys_of(plain), *reductions, *scoring["backsteps"][0],
        *json.loads(table.metadata[b"gradscore"]), *manifest, *manifest["identity"],
        *(field.name for kind in (Manifest, Shard) for field in fields(kind)),
        *metadata_of(demo / "demo/verdict.onnx"), *metadata_of(checkout / "self_scoring.onnx"),
    }  # fmt: skip
    assert len(found) > 60
    assert not sorted(key for key in found if f"`{key}`" not in PAGES["reference/files.md"])


def test_pages_say_nothing_of_modules_that_are_gone():
    """Names such as gradscore.scoring.COUNTERS can be imported."""
    texts = [re.sub(r"^```diff\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE) for text in PAGES.values()]
    names = {name for text in texts for name in re.findall(r"`(gradscore(?:_kernels)?(?:\.\w+)+)`", text)}
    assert len(names) > 5
    for name in names - {"gradscore.manifest", "gradscore.verdict"}:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_extensions_are_documented():
    for path in (DOCS / "_ext").glob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
