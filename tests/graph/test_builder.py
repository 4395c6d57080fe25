"""The gradient builder's environment: where it is, how it comes there, and what is said when it does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from gradscore import BuilderError
from gradscore.graph.differentiate import builder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "gradscore"


@pytest.fixture
def pip(monkeypatch):
    """Pip that fills its target with one file, or fails with a message; returns the commands that it was given."""
    commands = []

    def fake(message=None):
        def run(command, **_):
            commands.append(command)
            target = Path(command[command.index("--target") + 1])
            (target / "onnxruntime.py").write_text(f"run = {len(commands)}")
            return subprocess.CompletedProcess(command, 0 if message is None else 1, "", message or "")

        monkeypatch.setattr(builder.subprocess, "run", run)
        return commands

    return fake


@pytest.fixture
def program(cache, monkeypatch):
    """Return a function that installs a program in the differentiating one's place."""

    def install(source):
        path = builder.status().path
        path.mkdir(parents=True)
        (path / "installed.json").write_text("{}")
        (path / "program.py").write_text(source)
        monkeypatch.setattr(builder, "_PROGRAM", path / "program.py")

    return install


def test_status_of_an_empty_cache(cache):
    found = builder.status()
    assert not found.installed
    assert found.path.parent == cache
    assert builder.VERSION in found.path.name
    assert not cache.exists()  # asking changes nothing


def test_install_is_done_once(cache, pip):
    commands = pip()
    first = builder.install()
    assert first.installed
    assert builder.install() == first == builder.status()
    assert len(commands) == 1
    assert commands[0][:4] == [sys.executable, "-m", "pip", "install"]
    assert f"onnxruntime-training-cpu=={builder.VERSION}" in commands[0]
    assert [path.name for path in cache.iterdir()] == [first.path.name]


def test_force_installs_again(cache, pip):
    commands = pip()
    path = builder.install().path
    builder.install(force=True)
    assert len(commands) == 2
    assert (path / "onnxruntime.py").read_text() == "run = 2"
    assert [found.name for found in cache.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        (
            "ERROR: No matching distribution found",
            r"No matching distribution found \(it needs a package index within reach",
        ),
        ("python: No module named pip", "run `python -m ensurepip`"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "free some space, .*XDG_CACHE_HOME"),
        ("", "no message"),
    ],
)
def test_a_failing_pip_is_quoted_and_leaves_nothing(message, advice, cache, pip):
    pip(message)
    with pytest.raises(BuilderError, match=advice) as caught:
        builder.install()
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []
    assert not builder.status().installed


def test_a_failing_reinstall_keeps_what_was_there(cache, pip):
    pip()
    path = builder.install().path
    pip("ERROR: index down")
    with pytest.raises(BuilderError):
        builder.install(force=True)
    assert builder.status().installed
    assert (path / "onnxruntime.py").exists()


def test_two_installs_at_once_end_with_one(cache, pip, monkeypatch):
    pip()
    place = builder._take_place

    def late(staging, path):
        monkeypatch.setattr(builder, "_take_place", place)
        assert builder.install().installed  # another process is faster

        def occupied(*_):
            raise OSError(39, "Directory not empty")

        monkeypatch.setattr(builder.shutil, "rmtree", lambda *_, **__: None)
        monkeypatch.setattr(type(staging), "rename", occupied)
        place(staging, path)

    monkeypatch.setattr(builder, "_take_place", late)
    assert builder.install().installed


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BuilderError, match=r"cannot write into the cache folder .*XDG_CACHE_HOME"):
        builder.install()


def test_a_python_without_wheel(cache, monkeypatch):
    monkeypatch.setattr(builder, "_LAST_PYTHON", (3, 8))
    with pytest.raises(BuilderError, match=r"has no wheel for Python 3\..*the scoring models run on any Python"):
        builder.install()


def test_differentiate_without_the_environment(cache):
    with pytest.raises(BuilderError, match=r"run `gradscore builder install` once"):
        builder.differentiate(b"", "y", ["x"])


def test_what_goes_in_and_comes_out(program):
    program("import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])")
    request = b'{"target": "y", "wrt": ["x"]}\n\x00model'
    assert builder.differentiate(b"\x00model", "y", ["x"]) == request[::-1]


def test_a_refusal_is_quoted(program):
    program("raise SystemExit('WARNING: noise\\nRuntimeError: no gradient for Foo\\n')")
    with pytest.raises(BuilderError, match=r"refused this graph: RuntimeError: no gradient for Foo$"):
        builder.differentiate(b"", "y", ["x"])


def test_a_crash_names_its_signal(program):
    program("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(BuilderError, match="crashed with signal 11"):
        builder.differentiate(b"", "y", ["x"])


def test_a_hanging_process_is_stopped(program):
    program("import time; time.sleep(60)")
    with pytest.raises(BuilderError, match=r"stopped after 0 s on this graph of 3 bytes"):
        builder.differentiate(b"abc", "y", ["x"], timeout=0.2)
