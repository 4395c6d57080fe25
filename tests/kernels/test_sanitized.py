"""The C++ kernels under sanitizers: every load and store of every instruction set, on awkward shapes."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "kernels"
KINDS = {
    "vectors": "",
    "plain": "-DGRADSCORE_PLAIN_VECTORS",  # the code for compilers without vector extensions
}


@pytest.mark.slow
@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS.keys())
def test_no_kernel_reads_or_writes_out_of_bounds(tmp_path, flags):
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("needs cmake and a C++ compiler")
    configure = ["-DGRADSCORE_SANITIZE=address;undefined", f"-DCMAKE_CXX_FLAGS={flags}"]
    for command in (
        ["cmake", "-S", str(SOURCE), "-B", str(tmp_path), *configure],
        ["cmake", "--build", str(tmp_path)],
        [str(tmp_path / "selftest")],
    ):
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"{command}\n{run.stdout}\n{run.stderr}"
    assert run.stdout.splitlines()[-1] == "portable done"
