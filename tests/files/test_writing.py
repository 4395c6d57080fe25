"""Output files appear whole or not at all, and never replace a file without permission."""

import os
import resource
import signal
import subprocess
import sys
import tempfile

import pytest

from gradscore import GradscoreError, OutputExistsError
from gradscore.files.writing import refuse_existing, replacing


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "out.bin"
    with replacing(path, overwrite=False) as part:
        part.write_bytes(b"new")
        assert not path.exists()
        assert part.parent == tmp_path
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["out.bin"]


def test_an_existing_file_needs_the_flag(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with pytest.raises(OutputExistsError, match=r"out\.bin exists: .*--overwrite"), replacing(path, overwrite=False):
        pytest.fail("the block must not run")
    assert path.read_bytes() == b"old"
    with replacing(path, overwrite=True) as part:
        part.write_bytes(b"new")
    assert path.read_bytes() == b"new"


def test_replacing_does_not_write_into_the_old_file(tmp_path):
    """Whoever has the old file open, or holds another name of it, keeps what was there."""
    path, other = tmp_path / "out.bin", tmp_path / "other.bin"
    path.write_bytes(b"old")
    other.hardlink_to(path)
    with replacing(path, overwrite=True) as part:
        part.write_bytes(b"new")
    assert (path.read_bytes(), other.read_bytes()) == (b"new", b"old")


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit, BrokenPipeError])
def test_a_failure_leaves_the_old_file_and_no_part(failure, tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")

    def write():
        with replacing(path, overwrite=True) as part:
            part.write_bytes(b"half")
            raise failure

    with pytest.raises(failure):
        write()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["out.bin"]


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "out.bin", overwrite=False) as part:
            part.write_bytes(b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "out.bin").stat().st_mode & 0o777 == 0o640


def test_only_regular_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputExistsError, match="is a folder: name a file"):
        refuse_existing(tmp_path, overwrite=True)
    with pytest.raises(OutputExistsError, match="pipe is not a regular file"):
        refuse_existing(tmp_path / "pipe", overwrite=True)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(GradscoreError, match=r"the folder .*absent does not exist; create it first"):
        refuse_existing(tmp_path / "absent/out.bin", overwrite=False)


def test_a_read_only_folder_is_named(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with (
        pytest.raises(GradscoreError, match=f"cannot write into {tmp_path}: Permission denied"),
        replacing(tmp_path / "out.bin", overwrite=False),
    ):
        pytest.fail("the block must not run")


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path):
    program = (
        "import pathlib, sys\n"
        "from gradscore.files.writing import replacing\n"
        "with replacing(sys.argv[1], overwrite=False) as part:\n"
        "    part.write_bytes(bytes(100_000))\n"
    )

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "out.bin"], capture_output=True, text=True, preexec_fn=limit,
        check=False,
    )  # fmt: skip
    assert done.stderr.strip().splitlines()[-1].endswith(f"cannot write {tmp_path}/out.bin: File too large")
    assert names(tmp_path) == []
