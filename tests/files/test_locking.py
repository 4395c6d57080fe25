"""One run on one output: on file systems with locks and without, for runs that end and runs that are killed."""

import errno
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from gradscore.errors import OutputExistsError
from gradscore.files.locking import LOCK, locked

fcntl = pytest.importorskip("fcntl")  # Windows has locks of its own
WITHOUT = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL]  # what file systems without locks answer
ALL = [pytest.param(None, id="flock"), *(pytest.param(number, id=errno.errorcode[number]) for number in WITHOUT)]
HOLDER = """
import errno, fcntl, sys
from pathlib import Path
from gradscore.files.locking import locked

def refuse(*_):
    raise OSError(int(sys.argv[2]), "no locks here")

if sys.argv[2] != "None":
    fcntl.flock = refuse
with locked(Path(sys.argv[1]), output=Path("out")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=ALL)
def number(request, monkeypatch):
    """Let `flock` fail with this error, or work where it is None."""

    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    if request.param is not None:
        monkeypatch.setattr(fcntl, "flock", refuse)
    return request.param


@contextmanager
def another(folder, number):
    """Let another process hold the folder's lock."""
    command = [sys.executable, "-c", HOLDER, str(folder), str(number)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_nothing_is_left(number, tmp_path):
    with locked(tmp_path, output=Path("out")):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
        assert (tmp_path / LOCK).read_text().splitlines()[0] == str(os.getpid())
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_block_that_fails(number, tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path, output=Path("out")):
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


def test_a_second_run_is_refused_until_the_first_has_ended(number, tmp_path):
    with another(tmp_path, number) as process:
        with pytest.raises(OutputExistsError) as refusal, locked(tmp_path, output=Path("out")):
            pass
        message = str(refusal.value)
        if number is None:
            assert message == (
                f"another run (process {process.pid}) is writing out: wait for it, or choose another output"
            )
        else:
            host = socket.gethostname()
            assert message == (
                f"another run (process {process.pid} on {host}) is writing out: "
                f"wait for it, or choose another output; if it was killed on {host}, delete {tmp_path / LOCK}"
            )
        process.communicate("")
        assert process.returncode == 0
        assert not list(tmp_path.iterdir())
        with locked(tmp_path, output=Path("out")):
            assert (tmp_path / LOCK).exists()


def test_a_killed_run_holds_nothing(number, tmp_path):
    with another(tmp_path, number) as process:
        process.kill()
        process.wait()
        assert (tmp_path / LOCK).exists()
        with locked(tmp_path, output=Path("out")):
            assert (tmp_path / LOCK).read_text().splitlines()[0] == str(os.getpid())
        assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(number, tmp_path):
    with pytest.raises(FileNotFoundError), locked(tmp_path / "absent", output=Path("out")):
        pass
