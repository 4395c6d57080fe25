"""The demo's files, made once for all tests of the documentation."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """Return the folder in which `make demo` has written demo/; processes that test side by side share it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "documented"
    with FileLock(shared / "documented.lock"):
        if not (folder / "output.txt").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            done = subprocess.run(
                [sys.executable, "-m", "tools.demo", str(folder / "demo")],
                cwd=ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            (folder / "output.txt").write_text(done.stdout, encoding="utf-8")
    return folder


@pytest.fixture
def checkout(demo, tmp_path):
    """Return a folder that looks like a checkout after `make demo`, and may be written to."""
    shutil.copytree(demo / "demo", tmp_path / "demo")
    for name in ("examples", "models"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.fixture
def run_block(checkout):
    """Return a function that runs a page's block, "bash" or "python", as a reader does in an activated environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shells = {"bash": ["/bin/bash", "-euc"], "python": [sys.executable, "-c"]}

    def run(language, text):
        done = subprocess.run(
            [*shells[language], text], cwd=checkout, env={**os.environ, "PATH": path},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run
