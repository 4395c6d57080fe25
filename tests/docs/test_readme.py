"""The README is true: its generated parts are fresh, its lines run, and what it links to is there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_generated_parts_are_fresh():
    done = subprocess.run([sys.executable, "-m", "tools.readme", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run `python -m tools.readme`"


def test_linked_files_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\$ make (\S+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's files, where the README says they are."""
    folder = tmp_path_factory.mktemp("readme")
    done = subprocess.run(
        [sys.executable, "-m", "tools.demo", str(folder / "demo")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_demo_ends_with_a_better_verdict(demo):
    folder, output = demo
    rows = {name: float(auroc) for name, auroc in re.findall(r"(\w+)\s*│\s*all\s*│\s*([\d.]+)", output)}
    assert set(rows) == {"max_softmax", "entropy", "verdict"}
    assert rows["verdict"] > rows["max_softmax"] + 5
    assert (folder / "demo/verdicts.parquet").exists()
    told = {name: float(auroc) for name, auroc in re.findall(r"^\| ([\w ]+) \| \**([\d.]+)\**", README, re.MULTILINE)}
    for name, shown in (("max_softmax", "maximum softmax"), ("entropy", "entropy"), ("verdict", "gradscore verdict")):
        assert abs(rows[name] - told[shown]) < 1.5, f"the README's AUROC of {shown} is stale: {rows[name]}"


def test_command_lines_run(demo):
    folder, _ = demo
    (block,) = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for line in block.strip().splitlines():
        done = subprocess.run(
            shlex.split(line), cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_python_lines_run(demo):
    folder, _ = demo
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
