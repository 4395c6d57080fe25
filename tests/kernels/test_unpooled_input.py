"""`unpooled_conv_input`: every back end against the reference, and the reference against torch."""

from importlib import import_module
from itertools import product

import gradscore_kernels as gk
import numpy as np
import pytest
from gradscore_kernels import ConvGeometry, KernelError
from hypothesis import given

from tests.kernels.test_properties import drawn, dtypes, poolings, seeds
from tests.support.kernel_cases import CASES, every_backend, every_type, need

NEAR = {np.float32: 1e-5, np.float64: 1e-12}
POOLED = {name: case for name, case in CASES.items() if name.startswith("unpooled")}
every_pooled = pytest.mark.parametrize("name", POOLED)


def arguments(case, dtype=np.float32, seed=0):
    """Return the arrays a, activation, pooled_delta and weight, and the geometries."""
    geometry = case.extra["geometry"]
    arrays = case.arrays(dtype, seed)
    shape = (arrays[1].shape[1], arrays[0].shape[1] // geometry.groups, *geometry.kernel)
    arrays.append(np.random.default_rng(seed + 1).normal(size=shape).astype(dtype))
    return arrays, (geometry, case.extra["pool"])


def assert_near(found, expected, dtype):
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=NEAR[dtype], atol=NEAR[dtype] * np.abs(expected).max())


@every_type
@every_pooled
@pytest.mark.parametrize("backend", ["native", "numba"])
def test_agrees_with_the_reference(backend, name, dtype):
    need(backend)
    arrays, rest = arguments(POOLED[name], dtype)
    found, expected = (gk.unpooled_conv_input(*arrays, *rest, 0.25, backend=b) for b in (backend, "reference"))
    assert_near(found, expected, dtype)


@drawn
@given(poolings(), dtypes, seeds)
@pytest.mark.parametrize("backend", ["native", "numba"])
def test_drawn_geometries(backend, case, dtype, seed):
    need(backend)
    arrays, rest = arguments(case, dtype, seed)
    found, expected = (gk.unpooled_conv_input(*arrays, *rest, 0, backend=b) for b in (backend, "reference"))
    assert_near(found, expected, dtype)


@pytest.mark.parametrize("backend", ["native", "numba", "reference"])
def test_is_torchs_gradient_in_front_of_the_activation(backend):
    import torch

    need(backend)
    generator = torch.Generator().manual_seed(2)
    before = torch.randn(3, 6, 12, 13, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, 3, 3, 3, generator=generator, dtype=torch.float64)
    a = torch.nn.functional.leaky_relu(before, 0.1)
    activation = torch.nn.functional.conv2d(a, weight, stride=(1, 2), padding=(1, 0), groups=2)
    pooled = torch.nn.functional.max_pool2d(activation, 2)
    pooled_delta = torch.randn(pooled.shape, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(pooled, before, pooled_delta)
    given = [array.detach().numpy() for array in (a, activation, pooled_delta, weight)]
    geometry = ConvGeometry((3, 3), (1, 2), pads=(1, 0, 1, 0), groups=2)
    found = gk.unpooled_conv_input(*given, geometry, gk.PoolGeometry((2, 2), (2, 2)), 0.1, backend=backend)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12, atol=1e-12)


@every_pooled
@every_backend
def test_threads_and_batches_change_no_bit(backend, name):
    need(backend)
    (*arrays, weight), rest = arguments(POOLED[name])
    arrays = [np.concatenate([array] * 9) for array in arrays]
    whole = gk.unpooled_conv_input(*arrays, weight, *rest, 0.5, backend=backend, threads=1)
    for threads in (2, 3):
        found = gk.unpooled_conv_input(*arrays, weight, *rest, 0.5, backend=backend, threads=threads)
        np.testing.assert_array_equal(found, whole)
    last = [array[-1:] for array in arrays]
    np.testing.assert_array_equal(gk.unpooled_conv_input(*last, weight, *rest, 0.5, backend=backend)[0], whole[-1])


@every_pooled
@pytest.mark.parametrize("backend", ["native", "numba", "reference"])
def test_nan_stays_in_its_sample(backend, name):
    need(backend)
    (*arrays, weight), rest = arguments(POOLED[name])
    clean = gk.unpooled_conv_input(*arrays, weight, *rest, 1, backend=backend)
    met = rest[1].windows(arrays[1].shape[2:], arrays[2].shape[2:])[1]
    for index, cell in ((1, met[0, -1]), (2, 0)):
        spoilt = [array.copy() for array in arrays]
        spoilt[index].reshape(*spoilt[index].shape[:2], -1)[1, 0, cell] = np.nan
        found = gk.unpooled_conv_input(*spoilt, weight, *rest, 1, backend=backend)
        np.testing.assert_array_equal(np.delete(found, 1, 0), np.delete(clean, 1, 0))
    assert gk.unpooled_conv_input(*(array[:0] for array in arrays), weight, *rest, 1, backend=backend).size == 0


def test_a_weight_of_another_shape_is_refused():
    (*arrays, weight), rest = arguments(CASES["unpooled-squares-middle"])
    with pytest.raises(KernelError, match=r"'weight' has shape \[19, 8, 3, 3\], not \[19, 16, 3, 3\], as ConvGeometry"):
        gk.unpooled_conv_input(*arrays, weight[:, :8], *rest, 0)
    with pytest.raises(KernelError, match="axis M is 19 in 'activation' and 18 in 'weight'"):
        gk.unpooled_conv_input(*arrays, weight[:-1], *rest, 0)


@pytest.mark.parametrize("backend", gk.available_backends())
def test_statistics_behind_pools_keep_their_bits_beside_a_sample_with_nan(backend, rng):
    a, activation, pooled = (
        rng.standard_normal(shape, dtype=np.float32) for shape in ((3, 16, 13, 13), (3, 16, 11, 11), (3, 16, 5, 5))
    )
    geometries = ConvGeometry((3, 3)), gk.PoolGeometry((2, 2), (2, 2))
    alone = gk.unpooled_conv_moments(a, activation, pooled, *geometries, backend=backend)
    a[1, 0, 5, 5] = np.nan
    beside = gk.unpooled_conv_moments(a, activation, pooled, *geometries, backend=backend)
    np.testing.assert_array_equal(beside[[0, 2]], alone[[0, 2]])
    assert np.isnan(beside[1, 1:]).all()


@every_type
def test_first_maxima_of_the_numba_back_end(dtype):
    """Zeros and NaN of both signs, infinities and subnormal numbers; NaN is larger than any number."""
    need("numba")
    loops, numba = (import_module(f"gradscore_kernels.backends.{name}") for name in ("numba_loops", "numba_kernels"))
    tiny = np.finfo(dtype).smallest_subnormal
    odd = np.array([0.0, -0.0, tiny, -tiny, 1, -1, np.inf, -np.inf, np.nan, -np.nan], dtype)
    windows = np.array(list(product(range(len(odd)), repeat=3)), np.uint32)
    bits, order = numba._bits(odd)
    pooling = np.arange(len(windows)), np.ascontiguousarray(windows.T), 0
    found = loops.no_maxima(bits, pooling)
    loops.maxima(bits, order, pooling, found)
    expected = np.argmax(odd[windows], axis=1)  # the first NaN, else the first maximum
    np.testing.assert_array_equal(found[-1][: len(windows)], windows[np.arange(len(windows)), expected])


@every_type
@pytest.mark.parametrize("shape", [(16, 37), (7, 16), (4, 100)])
def test_first_maxima_of_squares_of_the_numba_back_end(dtype, shape):
    """Rows that are no multiple of a vector or of a square, with equal numbers and NaN."""
    need("numba")
    numba = import_module("gradscore_kernels.backends.numba_kernels")
    loops = import_module("gradscore_kernels.backends.numba_loops")
    rows, columns = shape
    plane = np.random.default_rng(0).choice(np.array([0.0, -0.0, 1, -1, np.inf, np.nan], dtype), rows * columns)
    bits, order = numba._bits(plane)
    pooling = numba._pooling(gk.PoolGeometry((2, 2), (2, 2)), shape, (rows // 2, columns // 2))
    assert pooling[2] == columns
    found = loops.no_maxima(bits, pooling)
    loops.maxima(bits, order, pooling, found)
    cells = pooling[1].T
    expected = cells[np.arange(len(cells)), np.argmax(plane[cells], axis=1)]
    np.testing.assert_array_equal(found[-1][: len(cells)], expected)
