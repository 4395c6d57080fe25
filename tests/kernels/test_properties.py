"""Random shapes, geometries, scales and offsets: every back end against the reference."""

import gradscore_kernels as gk
import numpy as np
import pytest
from gradscore_kernels import ConvGeometry, PoolGeometry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.kernel_cases import (
    EXACT,
    TILED,
    Case,
    assert_same_statistics,
    conv,
    every_backend,
    need,
    sequence,
    unpooled,
)

drawn = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
dtypes = st.sampled_from([np.float32, np.float64])
seeds = st.integers(0, 2**32 - 1)


@st.composite
def convolutions(draw):
    rank = draw(st.integers(1, 3))

    def by_axis(low, high, count=rank):
        return tuple(draw(st.integers(low, high)) for _ in range(count))

    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 17, 33]))
    channels = draw(st.integers(1, 5 if groups > 1 else 20))
    filters = draw(st.integers(1, 3 if groups > 3 else 40))
    kernel, strides, dilations = by_axis(1, 5 - rank), by_axis(1, 3), by_axis(1, 3)
    pads = by_axis(-1, 3, 2 * rank)
    geometry = ConvGeometry(kernel, strides, dilations, pads, groups)
    needed = [
        d * (k - 1) + 1 - pads[i] - pads[rank + i] for i, (k, d) in enumerate(zip(kernel, dilations, strict=True))
    ]
    margin = {1: 150, 2: 14, 3: 5}[rank]
    # Negative pads must not crop more than the whole input.
    spatial = tuple(max(1, size, 3) + draw(st.integers(0, margin)) for size in needed)
    return conv(2, channels * groups, filters * groups, spatial, geometry)


@drawn
@given(convolutions(), dtypes, seeds)
@pytest.mark.parametrize("backend", ["native", "numba"])
def test_convolutions(backend, case, dtype, seed):
    need(backend)
    arrays = case.arrays(dtype, seed)
    assert_same_statistics(case.run(arrays, backend=backend), case.run(arrays, backend="reference"), TILED[dtype])


@st.composite
def depthwise_in_place(draw):
    """Draw depthwise convolutions whose output has the input's size, with pads that need not be symmetric."""
    rank = draw(st.integers(1, 3))
    kernel, dilations, before, spatial = [], [], [], []
    for _ in range(rank):
        kernel.append(draw(st.integers(1, {1: 7, 2: 5, 3: 3}[rank])))
        dilations.append(draw(st.integers(1, 2)))
        before.append(draw(st.integers(0, kernel[-1] - 1)) * dilations[-1])
        spatial.append(draw(st.integers(1, {1: 1200, 2: 35, 3: 7}[rank])))
    after = [d * (k - 1) - pad for k, d, pad in zip(kernel, dilations, before, strict=True)]
    groups = draw(st.integers(1, 9))
    geometry = ConvGeometry(tuple(kernel), (1,) * rank, tuple(dilations), (*before, *after), groups)
    return conv(2, groups, draw(st.integers(1, 2)) * groups, tuple(spatial), geometry)


@drawn
@given(depthwise_in_place(), dtypes, seeds)
@pytest.mark.parametrize("backend", ["native", "numba"])
def test_depthwise_convolutions_in_place(backend, case, dtype, seed):
    need(backend)
    arrays = case.arrays(dtype, seed)
    assert_same_statistics(case.run(arrays, backend=backend), case.run(arrays, backend="reference"), TILED[dtype])


@st.composite
def poolings(draw):
    """Draw a max pool, of any kind or of 2 × 2 squares, behind a convolution with a large enough output."""
    rank = draw(st.integers(1, 3))

    def by_axis(low, high, count=rank):
        return tuple(draw(st.integers(low, high)) for _ in range(count))

    squares = draw(st.booleans())
    pool = PoolGeometry(by_axis(1, 3), by_axis(1, 3), by_axis(1, 2), by_axis(0, 2, 2 * rank))
    pool = PoolGeometry((2,) * rank, (2,) * rank) if squares else pool
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    kernel, strides, dilations = by_axis(1, 4 - rank if rank > 1 else 4), by_axis(1, 2), by_axis(1, 2)
    geometry = ConvGeometry(kernel, strides, dilations, by_axis(-1, 2, 2 * rank), groups)
    spatial = tuple(
        stride * (size + 4 + draw(st.integers(0, {1: 40, 2: 14, 3: 3}[rank]))) + dilation * (extent - 1) + 2
        for size, stride, dilation, extent in zip(pool.kernel, strides, dilations, kernel, strict=True)
    )
    channels = draw(st.sampled_from([1, 2, 3, 5, 8, 20]))
    return unpooled(
        2, channels * groups, draw(st.integers(1, 9)) * groups, spatial, geometry, pool, ceil=draw(st.booleans())
    )


@drawn
@given(poolings(), dtypes, seeds)
@pytest.mark.parametrize("backend", ["native", "numba"])
def test_poolings(backend, case, dtype, seed):
    need(backend)
    arrays = case.arrays(dtype, seed)
    assert_same_statistics(case.run(arrays, backend=backend), case.run(arrays, backend="reference"), TILED[dtype])


@drawn
@given(st.integers(1, 300), st.integers(1, 60), st.integers(1, 140), dtypes, seeds)
@pytest.mark.parametrize("backend", ["native", "numba"])
def test_sequences(backend, positions, inputs, outputs, dtype, seed):
    need(backend)
    case = sequence(2, positions, inputs, outputs)
    arrays = case.arrays(dtype, seed)
    assert_same_statistics(case.run(arrays, backend=backend), case.run(arrays, backend="reference"), TILED[dtype])


@drawn
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 500), dtypes, seeds)
@pytest.mark.parametrize("backend", ["native", "numba"])
def test_embeddings(backend, positions, width, vocabulary, dtype, seed):
    need(backend)
    case = Case("embedding_moments", ((2, positions), (2, positions, width)), {"vocabulary": vocabulary})
    arrays = case.arrays(dtype, seed)
    assert_same_statistics(case.run(arrays, backend=backend), case.run(arrays, backend="reference"), EXACT)


@drawn
@given(st.integers(1, 20000), st.integers(-30, 10), st.integers(-100, 100), dtypes, seeds)
@pytest.mark.parametrize("backend", ["native", "numba"])
def test_direct_at_every_scale_and_offset(backend, count, exponent, offset, dtype, seed):
    need(backend)
    g = ((np.random.default_rng(seed).normal(size=(2, count)) + offset) * 10.0**exponent).astype(dtype)
    expected = gk.direct_moments(g, backend="reference")
    assert_same_statistics(gk.direct_moments(g, backend=backend), expected, 1e-5 if count < 3 else EXACT)


@drawn
@given(st.integers(2, 300), st.integers(2, 300), st.integers(-15, 5), st.integers(-15, 5), st.integers(0, 100), seeds)
@pytest.mark.parametrize("backend", ["native", "numba"])
def test_outer_at_every_scale_and_offset(backend, inputs, outputs, x, y, offset, seed):
    need(backend)
    rng = np.random.default_rng(seed)
    a = ((rng.normal(size=(2, inputs)) + offset) * 10.0**x).astype("f")
    delta = ((rng.normal(size=(2, outputs)) - offset) * 10.0**y).astype("f")
    expected = gk.outer_moments(a, delta, backend="reference")
    assert_same_statistics(gk.outer_moments(a, delta, backend=backend), expected, EXACT)


TILED_CASES = {
    "conv": conv(2, 16, 16, (14, 14), ConvGeometry((3, 3))),
    "conv-depthwise": conv(2, 256, 256, (9, 9), ConvGeometry((3, 3), groups=256)),
    "conv-few-positions": conv(2, 8, 64, (5, 5), ConvGeometry((3, 3))),
    "sequence": sequence(2, 150, 40, 60),
}


@pytest.mark.parametrize("exponent", [-30, -22, -10, 0, 10])
@pytest.mark.parametrize("name", TILED_CASES)
@every_backend
def test_tiles_at_every_scale(backend, name, exponent):
    need(backend)
    a, delta = TILED_CASES[name].arrays(np.float64)
    arrays = [(a * 10.0 ** (exponent // 4)).astype("f"), (delta * 10.0 ** (exponent - exponent // 4)).astype("f")]
    found, expected = (TILED_CASES[name].run(arrays, backend=b) for b in (backend, "reference"))
    assert_same_statistics(found, expected, 1e-5)


@pytest.mark.parametrize("offset", [1, 10, 100])
@pytest.mark.parametrize("name", TILED_CASES)
@every_backend
def test_tiles_at_every_offset(backend, name, offset):
    """Gradients whose mean is about `offset` standard deviations: products of factors around one."""
    need(backend)
    case = TILED_CASES[name]
    rng = np.random.default_rng(offset)
    positions = np.prod(case.shapes[1][2:]) if case.kernel == "conv_moments" else case.shapes[1][1]
    spread = np.sqrt(np.sqrt(1 + positions / offset**2) - 1)
    arrays = [(1 + spread * rng.normal(size=shape)).astype("f") for shape in case.shapes]
    found, expected = (case.run(arrays, backend=b) for b in (backend, "reference"))
    row = gk.statistics(expected)[0]
    assert offset / 5 < row[4] / row[5] < offset * 5
    assert_same_statistics(found, expected, 1e-5)
