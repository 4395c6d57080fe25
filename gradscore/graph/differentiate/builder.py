"""The isolated environment of onnxruntime-training, which differentiates graphs.

onnxruntime-training installs a module named `onnxruntime`, as onnxruntime and onnxruntime-gpu do, so it cannot share
an environment with them: it lives in a folder of the user's cache and runs as a process of its own.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from gradscore.errors import BuilderError

VERSION = "1.19.2"
_REQUIREMENTS = (f"onnxruntime-training-cpu=={VERSION}", "numpy>=1.26,<3")
_PROGRAM = Path(__file__).parent / "_differentiate.py"
_LAST_PYTHON = (3, 12)
_INSTALLED = "installed.json"


@dataclass(frozen=True)
class BuilderStatus:
    """Where the builder's environment is, and whether it is there."""

    path: Path
    installed: bool
    version: str = VERSION


def status() -> BuilderStatus:
    """Tell whether the builder's environment for this Python is installed, and where."""
    path = user_cache_path("gradscore") / f"builder-{VERSION}-{sys.implementation.cache_tag}-{platform.machine()}"
    return BuilderStatus(path=path, installed=(path / _INSTALLED).is_file())


def install(*, force: bool = False) -> BuilderStatus:
    """Install the builder's environment with pip into the user's cache; does nothing where it is there already.

    Raises
    ------
    BuilderError
        This Python has no wheel of onnxruntime-training, the cache folder cannot be written, or pip failed.
    """
    current = status()
    if current.installed and not force:
        return current
    if sys.version_info[:2] > _LAST_PYTHON:
        raise BuilderError(
            f"onnxruntime-training {VERSION} has no wheel for Python {platform.python_version()}: prepare models with "
            "Python 3.11 or 3.12; the scoring models run on any Python"
        )
    try:
        current.path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix="builder-", dir=current.path.parent))
    except OSError as error:
        raise BuilderError(
            f"cannot write into the cache folder {current.path.parent} ({error.strerror}): "
            "name another by XDG_CACHE_HOME"
        ) from error
    try:
        _pip_install(staging)
        (staging / _INSTALLED).write_text(json.dumps({"requirements": _REQUIREMENTS}))
        if force or not status().installed:  # another process may have installed the same meanwhile, and use it
            _take_place(staging, current.path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return status()


def _take_place(staging: Path, path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
    try:
        staging.rename(path)
    except OSError as error:
        if not status().installed:  # else another process has installed the same meanwhile
            raise BuilderError(f"cannot move the gradient builder to {path}: {error.strerror}") from error


def _pip_install(target: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--target", str(target), *_REQUIREMENTS]
    environment = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603 - own pip
    if done.returncode:
        raise BuilderError(
            f"pip could not install the gradient builder into {target.parent}: {_last_line(done.stderr)} "
            f"({_advice(done.stderr)})"
        )


def _advice(message: str) -> str:
    if "No module named pip" in message:
        return "this environment has no pip: run `python -m ensurepip`, then try again"
    if "No space left" in message:
        return "free some space, or name another cache folder by XDG_CACHE_HOME"
    return (
        f"it needs a package index within reach, with a wheel for Python {platform.python_version()} on "
        f"{platform.system()} {platform.machine()}"
    )


def differentiate(model: bytes, target: str, wrt: Sequence[str], *, timeout: float = 600) -> bytes:
    """Return `model` with the gradient of value `target` with respect to the values `wrt` added.

    The seed enters as the value `<target>_grad`, results are `<wrt>_grad`.

    Raises
    ------
    BuilderError
        The environment is not installed, or the process failed, crashed or ran longer than `timeout` seconds.
    """
    current = status()
    if not current.installed:
        raise BuilderError(f"the gradient builder is not in {current.path}: run `gradscore builder install` once")
    request = json.dumps({"target": target, "wrt": list(wrt)}).encode() + b"\n" + model
    command = [sys.executable, "-I", "-S", str(_PROGRAM), str(current.path)]
    try:
        done = subprocess.run(  # noqa: S603 - own program
            command, input=request, capture_output=True, check=False, timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        raise BuilderError(
            f"the gradient builder was stopped after {timeout:.0f} s on this graph of {len(model):,} bytes: "
            "prepare a smaller model, or report it"
        ) from error
    if done.returncode < 0:
        raise BuilderError(
            f"the gradient builder crashed with signal {-done.returncode} on this graph: please report it"
        )
    if done.returncode:
        raise BuilderError(
            f"the gradient builder refused this graph: {_last_line(done.stderr.decode(errors='replace'))}"
        )
    return done.stdout


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and "WARNING" not in line]
    return lines[-1][-500:] if lines else "no message"
