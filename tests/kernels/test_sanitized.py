"""The C++ kernels by themselves: every load and store under sanitizers, and every header without the others."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "kernels"
KINDS = {
    "vectors": "",
    "plain": "-DGRADSCORE_PLAIN_VECTORS",  # the code for compilers without vector extensions
}


def need_tools(*tools):
    """Skip the test where a tool is not installed."""
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")


def run_all(*commands):
    """Run commands one after the other; returns the last one's output."""
    for command in commands:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"{command}\n{run.stdout}\n{run.stderr}"
    return run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS.keys())
def test_no_kernel_reads_or_writes_out_of_bounds(tmp_path, flags):
    need_tools("cmake", "c++")
    configure = ["-DGRADSCORE_SANITIZE=address;undefined", f"-DCMAKE_CXX_FLAGS={flags}"]
    output = run_all(
        ["cmake", "-S", str(SOURCE), "-B", str(tmp_path), *configure],
        ["cmake", "--build", str(tmp_path)],
        [str(tmp_path / "selftest")],
    )
    assert output.splitlines()[-1] == "portable done"


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_every_header_compiles_alone(tmp_path, compiler):
    need_tools("cmake", compiler)
    options = [f"-DCMAKE_CXX_COMPILER={compiler}", "-DGRADSCORE_CHECKS=ON", "-DGRADSCORE_QUICK=ON"]
    run_all(
        ["cmake", "-S", str(SOURCE), "-B", str(tmp_path), *options, "-DGRADSCORE_WERROR=ON"],
        ["cmake", "--build", str(tmp_path), "--target", "headers"],
    )
    compiled = {path.name for path in (tmp_path / "headers").rglob("*.hpp.cpp")}
    assert compiled == {f"{path.name}.cpp" for path in (SOURCE / "native").glob("*.hpp")}
