"""The README is true and short: its lines run, its numbers are the demo's, and what it links to is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_WORDS = 900


def test_it_is_short():
    assert len(README.split()) <= MOST_WORDS


def test_linked_files_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) > 10
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:\$|`)\s?make (\w+)", README))
    assert targets >= {"demo", "test", "docs"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_demo_ends_with_a_better_verdict(demo):
    output = (demo / "output.txt").read_text(encoding="utf-8")
    rows = {name: float(auroc) for name, auroc in re.findall(r"(\w+)\s*│\s*all\s*│\s*([\d.]+)", output)}
    assert set(rows) == {"max_softmax", "entropy", "max_logit", "energy", "margin", "verdict"}
    assert rows["verdict"] > rows["max_softmax"] + 5
    assert (demo / "demo/verdicts.parquet").exists()
    told = {name: float(auroc) for name, auroc in re.findall(r"^\| ([\w ]+) \| \**([\d.]+)\**", README, re.MULTILINE)}
    for name, shown in (("max_softmax", "maximum softmax"), ("entropy", "entropy"), ("verdict", "gradscore verdict")):
        assert abs(rows[name] - told[shown]) < 1.5, f"the README's AUROC of {shown} is stale: {rows[name]}"


@pytest.mark.parametrize("language", ["bash", "python"])
def test_lines_run(run_block, language):
    (block,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    run_block(language, block)
