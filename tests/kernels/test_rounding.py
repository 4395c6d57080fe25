"""Cases where the rounding of float32 would show: few numbers, or numbers close together far from 0."""

import gradscore_kernels as gk
import numpy as np
import pytest
from gradscore_kernels import ConvGeometry, PoolGeometry

from tests.support.kernel_cases import TILED, assert_same_statistics, conv, every_backend, need, sequence, unpooled

SAMPLES = 48
TOLERANCE = TILED[np.float32]


def far_arrays(case, rng, least=1, most=100):
    """Return factors around one, so that means of sums are about `least` to `most` standard deviations."""
    positions = case.shapes[0][1] if case.kernel == "sequence_moments" else np.prod(case.shapes[-1][2:])
    offset = least * (most / least) ** rng.random(case.shapes[0][0])
    spread = np.sqrt(np.sqrt(1 + positions / offset**2) - 1)
    return [
        (1 + spread.reshape(-1, *(1,) * (len(shape) - 1)) * rng.normal(size=shape)).astype("f") for shape in case.shapes
    ]


def drawn_geometry(rng, rank, groups):
    """Draw a small kernel, sometimes strided, dilated, padded or cropped, and an input for it."""
    kernel = tuple(rng.integers(1, {1: 7, 2: 4, 3: 3}[rank], rank))
    plain = rng.random() < 0.5
    strides, dilations = (np.ones(rank, int) if plain else rng.integers(1, 3, rank) for _ in range(2))
    pads = rng.integers(-1, 2, 2 * rank) * (rng.random() < 0.7)
    needed = [d * (k - 1) + 1 - b - e for k, d, b, e in zip(kernel, dilations, pads[:rank], pads[rank:], strict=True)]
    spatial = tuple(int(max(size, 3) + rng.integers(0, {1: 130, 2: 12, 3: 5}[rank])) for size in needed)
    return ConvGeometry(kernel, tuple(strides), tuple(dilations), tuple(pads), groups), spatial


def drawn_conv(rng):
    groups = int(rng.integers(1, 4))
    geometry, spatial = drawn_geometry(rng, int(rng.integers(1, 4)), groups)
    return conv(SAMPLES, groups * int(rng.integers(1, 3)), groups * int(rng.integers(1, 3)), spatial, geometry)


def drawn_depthwise(rng):
    """Draw a depthwise convolution whose output has the input's size: all weights of a filter meet almost the same numbers."""
    rank = int(rng.integers(1, 4))
    kernel = tuple(int(k) for k in rng.integers(1, 4, rank))
    begin = tuple(int(rng.integers(0, k)) for k in kernel)
    end = tuple(k - 1 - b for k, b in zip(kernel, begin, strict=True))
    spatial = tuple(int(n) for n in rng.integers(1, {1: 200, 2: 18, 3: 8}[rank], rank))
    groups = int(rng.integers(1, 3))
    return conv(SAMPLES, groups, groups, spatial, ConvGeometry(kernel, pads=(*begin, *end), groups=groups))


def drawn_sequence(rng):
    return sequence(SAMPLES, int(rng.integers(2, 300)), int(rng.integers(1, 6)), int(rng.integers(1, 5)))


def drawn_unpooled(rng):
    rank = int(rng.integers(1, 4))
    geometry, spatial = drawn_geometry(rng, rank, 1)
    squares = rng.random() < 0.5
    pool = PoolGeometry((2,) * rank, (2,) * rank) if squares else PoolGeometry((3,) * rank, (2,) * rank)
    spatial = tuple(n + 3 * s for n, s in zip(spatial, geometry.strides, strict=True))
    return unpooled(SAMPLES, int(rng.integers(1, 3)), int(rng.integers(1, 3)), spatial, geometry, pool)


DRAWN = {
    "conv": drawn_conv,
    "depthwise": drawn_depthwise,
    "sequence": drawn_sequence,
    "unpooled": drawn_unpooled,
}


def numbers_of(case):
    """Return how many numbers a gradient holds."""
    inputs, outputs = case.shapes[0], case.shapes[1]
    if case.kernel == "sequence_moments":
        return inputs[2] * outputs[2]
    geometry = case.extra["geometry"]
    return outputs[1] * inputs[1] // geometry.groups * geometry.kernel_size


@pytest.mark.parametrize("kind", DRAWN)
@every_backend
def test_gradients_of_few_numbers(backend, kind):
    need(backend)
    rng = np.random.default_rng(list(kind.encode()))
    seen = 0
    while seen < 40:
        case = DRAWN[kind](rng)
        if not 2 <= numbers_of(case) <= 20:
            continue
        arrays = far_arrays(case, rng)
        assert_same_statistics(case.run(arrays, backend=backend), case.run(arrays, backend="reference"), TOLERANCE)
        seen += 1


FAR = {
    "conv": conv(64, 4, 9, (13, 12), ConvGeometry((3, 3))),
    "conv-squares": conv(64, 8, 8, (22, 22), ConvGeometry((3, 3))),
    "conv-few-squares": conv(64, 16, 12, (6, 6), ConvGeometry((3, 3))),
    "conv-depthwise": conv(64, 20, 20, (12, 13), ConvGeometry((3, 3), groups=20)),
    "conv-few-positions": conv(64, 6, 70, (5, 5), ConvGeometry((2, 2))),
    "sequence": sequence(64, 128, 6, 6),
    "sequence-wide": sequence(64, 90, 10, 40),
    "unpooled": unpooled(64, 1, 8, (24, 24), ConvGeometry((3, 3)), PoolGeometry((2, 2), (2, 2))),
    "unpooled-overlap": unpooled(64, 3, 4, (13, 14), ConvGeometry((3, 3)), PoolGeometry((3, 3), (2, 2))),
}


@pytest.mark.parametrize("name", FAR)
@every_backend
def test_numbers_close_together_far_from_0(backend, name):
    need(backend)
    case, rng = FAR[name], np.random.default_rng(5)
    for least, most in ((1, 10), (10, 100), (90, 100), (90, 100), (90, 100)):
        arrays = far_arrays(case, rng, least, most)
        assert_same_statistics(case.run(arrays, backend=backend), case.run(arrays, backend="reference"), TOLERANCE)


@pytest.mark.parametrize("name", FAR)
@every_backend
def test_samples_far_from_0_change_no_other(backend, name):
    """Some samples need float64 and others do not. Each row has the same bits alone, in a batch and on any thread."""
    need(backend)
    case, rng = FAR[name], np.random.default_rng(6)
    arrays = far_arrays(case, rng, 1, 1000)
    for near, array in zip(case.arrays(), arrays, strict=True):
        array[::3] = near[::3] - 1
    whole = case.run(arrays, backend=backend, threads=1)
    for threads in (2, 3):
        np.testing.assert_array_equal(case.run(arrays, backend=backend, threads=threads), whole)
    for b in range(0, len(whole), 5):
        np.testing.assert_array_equal(case.run([x[b : b + 1] for x in arrays], backend=backend)[0], whole[b])
    arrays[-1][7].flat[0] = np.nan
    spoilt = case.run(arrays, backend=backend)
    assert np.isnan(spoilt[7, 1:]).all()
    np.testing.assert_array_equal(np.delete(spoilt, 7, 0), np.delete(whole, 7, 0))


@every_backend
def test_large_samples_are_widened_a_few_at_a_time(backend):
    need(backend)
    case = conv(3, 1, 2, (720, 730), ConvGeometry((3, 2)))
    arrays = far_arrays(case, np.random.default_rng(7))
    expected = case.run(arrays, backend="reference")
    for threads in (1, 2):
        assert_same_statistics(case.run(arrays, backend=backend, threads=threads), expected, TOLERANCE)


@every_backend
def test_programs_sum_the_same_way(backend):
    need(backend)
    geometry = ConvGeometry((3, 1, 1), pads=(1, 0, 0, 1, 0, 0))
    case = conv(8, 1, 1, (7, 6, 7), geometry)
    a, delta = far_arrays(case, np.random.default_rng(8))
    program = gk.Program([gk.Step(gk.conv_moments, ("a", "delta"), (geometry,), 0)], backend=backend)
    expected = gk.statistics(case.run([a, delta], backend="reference"))
    for _ in range(2):  # first by the kernels, then compiled
        found = program.run({"a": a, "delta": delta}, np.ones(8)).reshape(8, 2, 8)
        np.testing.assert_allclose(found[:, 0], expected, rtol=1e-9, atol=1e-9)
