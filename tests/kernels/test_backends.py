"""Back ends as a whole: choice, instruction sets, numba without its compiler, many callers, light import."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradscore_kernels as gk
import numpy as np
import pytest
from gradscore_kernels.backends.base import Backend

from tests.support.kernel_cases import CASES, every_backend, need

# Runs every case on one back end in a process of its own. The worst difference fails as an assertion.
ALL_CASES = """
import sys
import numpy as np
from tests.support.kernel_cases import CASES, EXACT, TILED, assert_same_statistics
import gradscore_kernels as gk
backend, level, small = sys.argv[1], sys.argv[2], sys.argv[3] == "small"
assert level in ("any", gk.simd_level()), gk.simd_level()
done = 0
for case in CASES.values():
    if small and sum(int(np.prod(shape)) for shape in case.shapes) > 1500:
        continue
    for dtype in (np.float32, np.float64):
        arrays = case.arrays(dtype)
        expected = case.run(arrays, backend="reference")
        assert_same_statistics(case.run(arrays, backend=backend), expected, TILED[dtype] if case.tiled else EXACT)
        done += 1
print(done)
"""


def python(code, *arguments, **environment):
    """Run code in a fresh interpreter, with warnings as errors; it can import these tests."""
    paths = [str(Path(__file__).parents[2]), str(Path(gk.__file__).parents[1])]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | environment
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("level", ["portable", "avx2", "avx512"])
def test_every_instruction_set_gives_the_reference(level):
    need("native")
    if level not in gk.simd_levels():
        pytest.skip(f"this processor has no {level}")
    run = python(ALL_CASES, "native", level, "all", GRADSCORE_KERNELS_SIMD=level)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == 2 * len(CASES)


def test_numba_gives_the_reference_without_its_compiler():
    need("numba")
    run = python(ALL_CASES, "numba", "any", "small", NUMBA_DISABLE_JIT="1")
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) >= 24


def test_a_missing_instruction_set_is_refused():
    need("native")
    run = python("import gradscore_kernels as gk; gk.simd_level()", GRADSCORE_KERNELS_SIMD="mmx")
    assert "KernelError: GRADSCORE_KERNELS_SIMD=mmx is not possible here: choose" in run.stderr


def test_import_is_light():
    heavy = ["numba", "scipy", "torch", "sklearn", "matplotlib", "gradscore_kernels.backends.numba_kernels"]
    code = f"import gradscore_kernels, json, sys; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    assert json.loads(python(code).stdout) == []


def test_automatic_choice_is_the_fastest_available():
    assert gk.default_backend() == gk.available_backends()[0]
    assert set(gk.available_backends()) <= {"native", "numba", "reference", "cuda"}
    arrays = CASES["conv-middle"].arrays()
    found = CASES["conv-middle"].run(arrays)
    np.testing.assert_array_equal(found, CASES["conv-middle"].run(arrays, backend=gk.default_backend()))


@every_backend
def test_many_callers_at_once(backend):
    need(backend)
    names = ["conv-middle", "sequence", "direct-long", "embedding"]
    expected = {name: CASES[name].run(CASES[name].arrays(), backend=backend, threads=1) for name in names}
    with ThreadPoolExecutor(4) as pool:
        runs = [(n, pool.submit(CASES[n].run, CASES[n].arrays(), backend=backend, threads=2)) for n in names * 25]
        for name, run in runs:
            np.testing.assert_array_equal(run.result(), expected[name])


def test_back_ends_hold_every_kernel():
    functions = {spec.function for name, spec in gk.KERNELS.items() if name != "whole"} | {gk.BACKSTEP.function}
    for name in gk.available_backends():
        assert all(callable(getattr(gk.BACKENDS[name].module, function)) for function in functions), name


def test_a_kernel_that_a_back_end_lacks_is_refused():
    class Empty(Backend):
        name, requires, remedy, implementation = "empty", "numpy", "none", "numpy"

    with pytest.raises(gk.KernelError, match="back end 'empty' has no kernel conv_moments"):
        Empty().run("conv_moments", (), 1)


def test_what_a_back_end_cannot_do_it_refuses():
    reference = gk.BACKENDS["reference"]
    assert not reference.can_compile(())
    with pytest.raises(gk.KernelError, match="compiles no programs"):
        reference.compiled([])
    with pytest.raises(gk.KernelError, match="device memory"):
        reference.device_array(object())


def test_public_names():
    helpers = ["ACCUMULATORS", "STATISTICS", "ConvGeometry", "KernelError", "PoolGeometry", "Program", "Step"]
    kernels = ["conv_moments", "direct_moments", "embedding_moments", "outer_moments", "position_sum_moments"]
    assert set(gk.__all__) == {
        *helpers,
        *kernels,
        "BACKENDS",
        "BACKSTEP",
        "KERNELS",
        "KernelSpec",
        "available_backends",
        "default_backend",
        "layer_statistics",
        "merge",
        "sequence_moments",
        "sequence_sum_moments",
        "simd_level",
        "simd_levels",
        "softmax_features",
        "statistics",
        "unpooled_conv_input",
        "unpooled_conv_moments",
        "usable_cores",
    }
    assert {case.kernel for case in CASES.values()} == {name for name in gk.__all__ if name.endswith("_moments")}
