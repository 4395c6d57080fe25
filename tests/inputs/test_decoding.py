"""Small images are decoded in separate processes, with the same pixels and problems, even if a process ends."""

import logging
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from gradscore.errors import InputError
from gradscore.inputs.entries import ArrayRow, ImageFile
from gradscore.inputs.folders import FolderFiles
from gradscore.inputs.prefetch import decoders as decoding
from gradscore.inputs.prefetch.decoders import Decoders
from gradscore.inputs.prefetch.decoding_process import DecodingProcess
from gradscore.inputs.prefetch.pipeline import Readers
from gradscore.model.preprocessing import Preprocessing

HOW = Preprocessing("image", 1, 8, 8)


def read_here(entry):
    try:
        return entry.read(type("Model", (), {"preprocessing": HOW, "input_shape": (None, 1, 8, 8)}))
    except InputError as error:
        return str(error)


@pytest.fixture
def entries(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(60):
        Image.fromarray(rng.integers(0, 256, (8 + index % 3, 8), dtype=np.uint8)).save(folder / f"{index:02d}.png")
    (folder / "70.png").write_bytes(b"broken")
    (folder / "71.png").write_bytes(b"")
    Image.new("CMYK", (8, 8)).save(folder / "72.jpg")
    os.rename(folder / "03.png", os.fsencode(folder) + b"/\xff\n.png")  # noqa: PTH104 - not a path that pathlib makes
    found = list(FolderFiles(folder))
    (folder / "05.png").unlink()
    return found


@pytest.fixture
def processes(monkeypatch):
    """Count the processes that are started; a few images read here are enough for one."""
    started = []

    class Counted(DecodingProcess):
        def __init__(self, preprocessing):
            super().__init__(preprocessing)
            started.append(self)

    monkeypatch.setattr(decoding, "DecodingProcess", Counted)
    monkeypatch.setattr(decoding, "_ENOUGH", 10)
    monkeypatch.setattr(decoding, "_SMALL", 1.0)  # however slow the machine is
    monkeypatch.setattr(decoding, "_NEAR", 1.0)
    return started


def read(entries, size=10, threads=2, reader=read_here):
    with Decoders(reader, HOW, threads=threads) as decoders:
        return pieces(decoders, entries, size)


def pieces(decoders, entries, size=10, count=1):
    """Read in pieces; a process that starts after the first one is waited for."""
    found = []
    for start in range(0, len(entries), size):
        readers = Readers(4)
        readers.count = count
        found += decoders.read(entries[start : start + size], readers)
        if decoders._starting is not None:
            decoders._starting.result()
    return found


def same(found, wanted):
    return all(a == b if isinstance(a, str) else np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_pixels_and_problems_are_the_same(entries, processes, caplog):
    wanted = [read_here(entry) for entry in entries]
    assert sum(isinstance(one, str) for one in wanted) == 4
    with caplog.at_level(logging.WARNING):
        assert same(read(entries), wanted)
    (process,) = processes
    assert process._process.poll() == 0
    assert len(caplog.records) == sum(isinstance(one, str) for one in wanted[20:])  # `read_here` logs nothing


def test_as_many_processes_as_readers_come_one_by_one(entries, processes):
    wanted = [read_here(entry) for entry in entries]
    with Decoders(read_here, HOW, threads=8) as decoders:
        assert same(pieces(decoders, entries, count=3), wanted)
    assert len(processes) == 3


@pytest.mark.parametrize(("inputs", "tiny", "started"), [(60, 4096, 1), (60, 10, 0), (5, 4096, 0)])
def test_a_process_for_many_tiny_files_starts_at_once(entries, processes, monkeypatch, inputs, tiny, started):
    monkeypatch.setattr(decoding, "_TINY", tiny)
    with Decoders(read_here, HOW, threads=2, inputs=inputs) as decoders:
        decoders.expect(["/nowhere/a.png"])
        decoders.expect([entries[0].path])
        decoders.expect(None)
        if decoders._starting is not None:
            decoders._starting.result()
    assert len(processes) == started


def test_one_thread_has_no_process_beside_it(entries, processes):
    read(entries, threads=1)
    assert not processes


def test_a_few_images_are_read_here(entries, processes, monkeypatch):
    monkeypatch.setattr(decoding, "_ENOUGH", 1000)
    read(entries)
    assert not processes


@pytest.mark.parametrize("limit", ["_SMALL", "_NEAR"])
def test_slow_images_are_read_here(entries, processes, monkeypatch, limit):
    monkeypatch.setattr(decoding, limit, 0.0)
    read(entries)
    assert not processes


def test_other_inputs_are_read_here(processes):
    rows = np.zeros((40, 1, 8, 8), np.uint8)
    read([ArrayRow(str(index), rows, index) for index in range(40)], reader=lambda entry: entry.id)
    assert not processes


def test_decoding_goes_on_without_a_killed_process(entries, processes, caplog):
    wanted = [read_here(entry) for entry in entries]
    with caplog.at_level(logging.WARNING), Decoders(read_here, HOW, threads=2) as decoders:
        found = pieces(decoders, entries[:30])
        processes[0]._process.kill()
        found += pieces(decoders, entries[30:40]) + pieces(decoders, entries[40:], 1000)
    assert same(found, wanted)
    assert len(processes) == 1
    assert "decoding goes on" in caplog.text


def test_decoding_goes_on_if_no_process_can_start(entries, processes, monkeypatch):
    monkeypatch.setattr("gradscore.inputs.prefetch.decoding_process.sys.executable", "/nowhere/python")
    assert same(read(entries), [read_here(entry) for entry in entries])


def test_the_limit_of_pixels_goes_along(tmp_path, monkeypatch):
    Image.new("L", (40, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    process = DecodingProcess(HOW)
    answer = process.read([str(tmp_path / "a.png")])
    process.close()
    assert "too large to decode safely" in answer.found.problems[0]


def test_what_takes_long_is_named(tmp_path, processes, caplog, monkeypatch):
    answer = DecodingProcess.read

    def slow(self, paths):
        read = answer(self, paths)
        return type(read)(read.found, {1: 7.0}, read.cpu, read.wall)

    monkeypatch.setattr(DecodingProcess, "read", slow)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with caplog.at_level(logging.WARNING):
        read([ImageFile(f"{index}.png", tmp_path / "a.png") for index in range(30)])
    assert "21.png took 7 s to read" in caplog.text


def test_a_process_ends_with_its_parent(tmp_path):
    process = DecodingProcess(HOW)
    process.read([])
    process.close()
    process.close()
    assert process._process.poll() == 0
    with pytest.raises(ValueError, match="closed"):
        process.read([str(tmp_path / "a.png")])


def test_a_process_whose_parent_was_killed_ends_without_a_word(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    program = (
        "import os, signal, sys\n"
        "from gradscore.inputs.prefetch.decoding_process import DecodingProcess\n"
        "from gradscore.model.preprocessing import Preprocessing\n"
        "process = DecodingProcess(Preprocessing('image', 1, 8, 8))\n"
        "process.read([])\n"
        "process._ask(sys.argv[1:] * 200)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "a.png"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")  # the pipe of both, so both have ended


def test_the_process_loads_no_numpy():
    program = "import sys, gradscore.inputs.prefetch.decoding_service; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
