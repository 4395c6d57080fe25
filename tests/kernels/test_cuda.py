"""The CUDA back end: on the simulator in a process of its own, and on a device if there is one."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import gradscore_kernels as gk
import numpy as np
import pytest

from tests.kernels.test_unpooled_input import arguments, assert_near, every_pooled
from tests.support.kernel_cases import CASES, EXACT, TILED, assert_same_statistics

SMALL = 1500  # numbers in all arrays of a case; the simulator is slow

PRELUDE = """
import json
import numpy as np
from tests.support.kernel_cases import CASES, EXACT, TILED, assert_same_statistics, small_cases
import gradscore_kernels as gk

class Held:
    "An array that says it lies in device memory; the simulator's is the host's."
    def __init__(self, array):
        self.array = array
        self.__cuda_array_interface__ = array.__array_interface__ | {"version": 3}
"""


def simulate(code):
    """Run code in a fresh interpreter with the simulator on and warnings as errors; return the JSON that it prints."""
    if find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed")
    paths = [str(Path(__file__).parents[2]), str(Path(gk.__file__).parents[1])]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, "-W", "error", "-c", PRELUDE + code]
    run = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


EVERY_TYPE = ["float32", pytest.param("float64", marks=pytest.mark.slow)]  # the simulator is a thousand times slower


@pytest.mark.parametrize("dtype", EVERY_TYPE)
def test_simulated_kernels_give_the_reference(dtype):
    done = simulate(f"""
done = []
for name, case in small_cases({SMALL}).items():
    arrays = case.arrays(np.{dtype})
    found = case.run(arrays, backend="cuda")
    assert_same_statistics(found, case.run(arrays, backend="reference"), TILED[np.{dtype}] if case.tiled else EXACT)
    done.append(case.kernel)
print(json.dumps(done))
""")
    assert set(done) == {name for name in gk.__all__ if name.endswith("_moments")}


@pytest.mark.parametrize("dtype", EVERY_TYPE)
def test_simulated_derivatives_passed_back_give_the_reference(dtype):
    shapes = simulate(f"""
from tests.kernels.test_unpooled_input import arguments, assert_near
shapes = []
for name in ("unpooled-small", "unpooled-one-column", "unpooled-squares-narrow"):
    arrays, rest = arguments(CASES[name], np.{dtype})
    expected = gk.unpooled_conv_input(*arrays, *rest, 0.25, backend="reference")
    found = gk.unpooled_conv_input(*arrays, *rest, 0.25, backend="cuda")
    assert_near(found, expected, np.{dtype})
    np.testing.assert_array_equal(np.asarray(gk.unpooled_conv_input(*map(Held, arrays), *rest, 0.25)), found)
    shapes.append(found.shape)
print(json.dumps(shapes))
""")
    assert len(shapes) == 3


def test_simulated_sums_far_from_zero_are_exact():
    worst = simulate("""
rng = np.random.default_rng(0)
worst = []
for name in ("conv-few-positions", "sequence-few-positions"):
    case = CASES[name]
    arrays = [1 + 1e-3 * rng.standard_normal((1, *shape[1:]), dtype=np.float32) for shape in case.shapes]
    if name == "conv-few-positions":
        case, arrays = CASES["conv-pointwise"], [arrays[0][:, :16], arrays[1][:, :16]]
    found, expected = (gk.statistics(case.run(arrays, backend=b)) for b in ("cuda", "reference"))
    assert (np.abs(expected[:, 4]) > 50 * expected[:, 5]).all()
    worst.append(float(np.max(np.abs(found - expected)[:, 6:] / (1 + np.abs(expected[:, 6:])))))
print(json.dumps(worst))
""")
    assert max(worst) < 1e-5


@pytest.mark.slow
def test_simulated_samples_do_not_touch_one_another():
    found = simulate(f"""
found = []
for name, case in small_cases({SMALL}).items():
    arrays = case.arrays()
    whole = case.run(arrays, backend="cuda")
    np.testing.assert_array_equal(case.run([x[1:2] for x in arrays], backend="cuda")[0], whole[1])
    assert case.run([x[:0] for x in arrays], backend="cuda").shape == (0, 8)
    arrays[-1][1].flat[0] = np.nan
    spoilt = case.run(arrays, backend="cuda")
    assert np.isnan(spoilt[1, 1:]).all() and spoilt[1, 0] == whole[1, 0], name
    np.testing.assert_array_equal(np.delete(spoilt, 1, 0), np.delete(whole, 1, 0))
    found.append(name)
print(json.dumps(found))
""")
    assert len(found) >= 10


def test_arrays_in_device_memory_are_reduced_there():
    errors = simulate("""
case = CASES["conv-one-position"]
arrays = case.arrays()
expected = case.run(arrays, backend="cuda")
np.testing.assert_array_equal(case.run([Held(x) for x in arrays]), expected)
embedding = CASES["embedding"]
ids, delta = embedding.arrays()
found = embedding.run([Held(ids), Held(delta)])
np.testing.assert_array_equal(found, embedding.run([ids, delta], backend="cuda"))
errors = []
for call in (lambda: case.run([Held(x) for x in arrays], backend="native"), lambda: gk.direct_moments(Held(ids))):
    try:
        call()
    except gk.KernelError as error:
        errors.append(str(error))
print(json.dumps(errors))
""")
    assert "'a' lies in device memory, which back end 'native' cannot read" in errors[0]
    assert "'g' is int64, not float32 or float64" in errors[1]


def test_automatic_choice_for_arrays_of_the_host_is_never_the_device():
    assert simulate("print(json.dumps([gk.default_backend(), gk.available_backends()[-1]]))") == [
        gk.default_backend(),
        "cuda",
    ]


def test_a_missing_device_is_refused():
    if "cuda" in gk.available_backends():
        pytest.skip("there is a device")
    with pytest.raises(
        gk.KernelError, match=r'back end .cuda. is not installed here: pip install "numba-cuda\[cu12\]"'
    ):
        gk.direct_moments(np.ones((2, 3)), backend="cuda")


@pytest.mark.gpu
@every_pooled
def test_device_passes_derivatives_back(name):
    if "cuda" not in gk.available_backends():
        pytest.skip("no CUDA device, or numba-cuda is not installed")
    for dtype in (np.float32, np.float64):
        arrays, rest = arguments(CASES[name], dtype)
        found, expected = (gk.unpooled_conv_input(*arrays, *rest, 0.25, backend=b) for b in ("cuda", "reference"))
        assert_near(found, expected, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_device_gives_the_reference(name):
    if "cuda" not in gk.available_backends():
        pytest.skip("no CUDA device, or numba-cuda is not installed")
    case = CASES[name]
    for dtype in (np.float32, np.float64):
        arrays = case.arrays(dtype)
        expected = case.run(arrays, backend="reference")
        assert_same_statistics(case.run(arrays, backend="cuda"), expected, TILED[dtype] if case.tiled else EXACT)
