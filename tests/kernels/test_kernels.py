"""Every kernel, back end and type against the reference, and the reference against the definitions."""

from itertools import product

import gradscore_kernels as gk
import numpy as np
import pytest
import scipy.stats
from gradscore_kernels import ConvGeometry, PoolGeometry

from tests.support.kernel_cases import (
    CASES,
    EXACT,
    TILED,
    Case,
    assert_same_statistics,
    conv,
    every_backend,
    every_case,
    every_type,
    need,
)


def defined_convolution(a, delta, geometry):
    """Return the weight gradient of one sample, one multiplication at a time."""
    rank, groups = len(geometry.kernel), geometry.groups
    channels, filters = len(a) // groups, len(delta) // groups
    gradient = np.zeros((len(delta), channels, *geometry.kernel))
    for m, c, k in product(range(len(delta)), range(channels), product(*map(range, geometry.kernel))):
        for out in np.ndindex(delta.shape[1:]):
            at = tuple(
                o * s + i * d - p
                for o, s, i, d, p in zip(
                    out, geometry.strides, k, geometry.dilations, geometry.pads[:rank], strict=True
                )
            )
            if all(0 <= x < size for x, size in zip(at, a.shape[1:], strict=True)):
                gradient[(m, c, *k)] += float(delta[(m, *out)]) * float(a[(m // filters * channels + c, *at)])
    return gradient


def defined_unpooling(activation, pooled_delta, pool):
    """Return δ in front of the max pool, one sample and window at a time."""
    delta = np.zeros(activation.shape)
    for channel, *window in np.ndindex(pooled_delta.shape):
        best = None
        for k in product(*map(range, pool.kernel)):
            at = tuple(
                o * s + i * d - p
                for o, s, i, d, p in zip(window, pool.strides, k, pool.dilations, pool.pads, strict=False)
            )
            inside = all(0 <= x < size for x, size in zip(at, activation.shape[1:], strict=True))
            if inside and (best is None or activation[(channel, *at)] > activation[(channel, *best)]):
                best = at
        if best is not None:
            delta[(channel, *best)] += pooled_delta[(channel, *window)]
    return delta


def defined(case, arrays):
    """Return the gradients `[B, ...]` by the kernel's definition, in float64."""
    x = [array.astype(np.float64) if array.dtype.kind == "f" else array for array in arrays]
    if case.kernel == "conv_moments":
        return np.stack([defined_convolution(*pair, case.extra["geometry"]) for pair in zip(*x, strict=True)])
    if case.kernel == "unpooled_conv_moments":
        deltas = [defined_unpooling(*pair, case.extra["pool"]) for pair in zip(*x[1:], strict=True)]
        geometry = case.extra["geometry"]
        return np.stack([defined_convolution(*pair, geometry) for pair in zip(x[0], deltas, strict=True)])
    if case.kernel == "embedding_moments":
        tables = np.zeros((len(x[0]), case.extra["vocabulary"], x[1].shape[2]))
        for b, t in np.ndindex(x[0].shape):
            tables[b, x[0][b, t]] += x[1][b, t]
        return tables
    return {
        "outer_moments": lambda a, d: d[:, :, None] * a[:, None, :],
        "sequence_moments": lambda a, d: np.swapaxes(d, 1, 2) @ a,
        "direct_moments": lambda g: g,
        "position_sum_moments": lambda d: d.reshape(*d.shape[:2], -1).sum(2),
        "sequence_sum_moments": lambda d: d.sum(1),
    }[case.kernel](*x)


def defined_accumulators(gradients):
    """Return n, Σ|g|, mean, M2, M3, M4, min, max, with scipy's central moments."""
    rows = []
    for g in gradients.reshape(len(gradients), -1):
        powers = [scipy.stats.moment(g, order=k) * g.size for k in (2, 3, 4)]
        rows.append([g.size, np.linalg.norm(g, 1), g.mean(), *powers, g.min(), g.max()])
    return np.array(rows)


# Their definition, one product at a time in Python, takes many seconds; smaller cases of the same kinds remain.
LONG_BY_HAND = {
    "conv-squares-odd", "conv-middle", "conv-same", "conv-depthwise-long", "conv-few-positions", "unpooled-squares",
    "unpooled-squares-same", "unpooled-squares-middle",
}  # fmt: skip
DEFINED = [name for name in CASES if "many" not in name and "wide" not in name]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG_BY_HAND else name for name in DEFINED]
)
def test_reference_follows_the_definition(name):
    arrays = CASES[name].arrays()
    found = CASES[name].run(arrays, backend="reference")
    np.testing.assert_allclose(found, defined_accumulators(defined(CASES[name], arrays)), rtol=1e-9, atol=1e-9)


def gives_constants(case):
    """Tell whether constant arrays give a constant gradient: not with padding, skipped rows or a max pool."""
    geometry = case.extra.get("geometry")
    return case.kernel not in {"embedding_moments", "unpooled_conv_moments"} and (
        geometry is None or max(geometry.pads) <= 0
    )


@every_type
@every_backend
@every_case
def test_agrees_with_the_reference(case, backend, dtype):
    need(backend)
    arrays = case.arrays(dtype)
    tolerance = TILED[dtype] if case.tiled else EXACT
    assert_same_statistics(case.run(arrays, backend=backend), case.run(arrays, backend="reference"), tolerance)


@every_backend
@every_case
def test_threads_and_batches_change_no_bit(case, backend):
    need(backend)
    arrays = [
        np.concatenate([array] * 9) * (1 if array.dtype.kind == "i" else array.dtype.type(3)) for array in case.arrays()
    ]
    whole = case.run(arrays, backend=backend, threads=1)
    for threads in (2, 3):
        np.testing.assert_array_equal(case.run(arrays, backend=backend, threads=threads), whole)
    for b in (0, len(whole) - 1):
        np.testing.assert_array_equal(case.run([x[b : b + 1] for x in arrays], backend=backend)[0], whole[b])


@every_backend
def test_threads_change_no_bit_where_they_are_used(backend):
    need(backend)
    case = conv(24, 16, 16, (16, 16), ConvGeometry((3, 3), pads=(1, 1, 1, 1)))
    arrays = case.arrays()
    whole = case.run(arrays, backend=backend, threads=1)
    for threads in (2, 3, 64):
        np.testing.assert_array_equal(case.run(arrays, backend=backend, threads=threads), whole)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("backend", ["native", "numba", "reference"])
@every_case
def test_not_a_number_stays_in_its_sample(case, backend, bad):
    need(backend)
    arrays = case.arrays()
    clean = case.run(arrays, backend=backend)
    arrays[-1][1].flat[0] = bad
    found = case.run(arrays, backend=backend)
    assert found[1, 0] == clean[1, 0]
    assert np.isnan(found[1, 1:]).all()
    np.testing.assert_array_equal(np.delete(found, 1, 0), np.delete(clean, 1, 0))
    assert np.isnan(gk.statistics(found)[1]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "name", ["conv-depthwise", "conv-depthwise-same", "conv-depthwise-uneven", "conv-depthwise-1d"]
)
@every_backend
def test_not_a_number_wherever_it_stands(backend, name, bad):
    """Every other sample holds the bad number at another place: of the input, then of δ. The rest keep their bits."""
    need(backend)
    case = CASES[name]
    for which, array in enumerate(case.arrays()):
        arrays = [np.repeat(one[:1], 2 * array[0, 0].size, axis=0) for one in case.arrays()]
        clean = case.run(arrays, backend=backend)
        for place in range(array[0, 0].size):
            arrays[which][2 * place, 1].flat[place] = bad
        found = case.run(arrays, backend=backend)
        np.testing.assert_array_equal(found[1::2], clean[1::2])
        broken = np.isnan(case.run(arrays, backend="reference")[::2, 1])
        assert broken.mean() > 0.9  # some inputs may meet no weight
        np.testing.assert_array_equal(np.isnan(found[::2, 1:]), np.repeat(broken[:, None], 7, axis=1))


@pytest.mark.parametrize("backend", ["native", "numba", "reference"])
def test_input_that_no_weight_meets_does_not_count(backend):
    need(backend)
    case = conv(2, 1, 3, (5, 5), ConvGeometry((2, 2), (3, 3)))
    arrays = case.arrays()
    clean = case.run(arrays, backend=backend)
    arrays[0][0, 0, 2, :] = np.nan
    np.testing.assert_array_equal(case.run(arrays, backend=backend), clean)


@pytest.mark.parametrize("backend", ["native", "numba", "reference"])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.7e-20])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if gives_constants(case)])
def test_constant_gradients_have_no_spread(name, value, backend):
    need(backend)
    case = CASES[name]
    arrays = [np.full_like(array, value) for array in case.arrays()]
    found = gk.statistics(case.run(arrays, backend=backend))
    assert (found[:, 6:] == 0).all()
    assert (found[:, 5] <= 1e-15 * np.abs(found[:, 4])).all()
    if case.kernel == "direct_moments":
        np.testing.assert_allclose(found[:, 2:5], np.float32(value), rtol=1e-12)


@pytest.mark.parametrize("backend", ["native", "numba", "reference"])
@every_case
def test_no_samples_give_no_rows(case, backend):
    need(backend)
    assert case.run([array[:0] for array in case.arrays()], backend=backend).shape == (0, 8)


@every_backend
def test_one_position_is_an_outer_product(backend):
    need(backend)
    a, delta = Case("outer_moments", ((6, 50), (6, 30))).arrays()
    expected = gk.outer_moments(a, delta, backend=backend)
    assert_same_statistics(gk.sequence_moments(a[:, None], delta[:, None], backend=backend), expected, EXACT)


@every_backend
def test_transposed_convolution_swaps_the_roles(backend):
    need(backend)
    geometry = ConvGeometry((3, 3), (2, 2), pads=(1, 1, 1, 1))
    rng = np.random.default_rng(1)
    x, delta = rng.normal(size=(2, 4, 5, 6)).astype("f"), rng.normal(size=(2, 3, 9, 11)).astype("f")
    gradient = np.zeros((2, 4, 3, 3, 3))
    for b, c, m, ky, kx, y, z in product(range(2), range(4), range(3), range(3), range(3), range(5), range(6)):
        to = (2 * y + ky - 1, 2 * z + kx - 1)
        if 0 <= to[0] < 9 and 0 <= to[1] < 11:
            gradient[b, c, m, ky, kx] += float(x[b, c, y, z]) * float(delta[b, m, to[0], to[1]])
    found = gk.conv_moments(delta, x, geometry, backend=backend)
    assert_same_statistics(found, defined_accumulators(gradient), 1e-5)


@every_backend
def test_strided_and_mixed_arrays_are_accepted(backend):
    need(backend)
    a, delta = CASES["outer"].arrays()
    expected = gk.outer_moments(a.astype(np.float64), delta.astype(np.float64), backend=backend)
    np.testing.assert_array_equal(
        gk.outer_moments(np.asfortranarray(a), delta.astype(np.float64), backend=backend), expected
    )
    wide = np.repeat(a, 2, axis=1)[:, ::2]
    np.testing.assert_array_equal(
        gk.outer_moments(wide, delta, backend=backend), gk.outer_moments(a, delta, backend=backend)
    )


POOLINGS = {
    "squares": (PoolGeometry((2, 2), (2, 2)), False),
    "squares-ceil": (PoolGeometry((2, 2), (2, 2)), True),
    "overlapping": (PoolGeometry((3, 3), (2, 2), pads=(1, 1, 1, 1)), False),
    "dilated-ceil": (PoolGeometry((2, 3), (3, 2), (2, 2), (1, 1, 1, 1)), True),
    "1d": (PoolGeometry((3,), (1,), pads=(1, 1)), False),
    "3d": (PoolGeometry((2, 3, 2), (2, 2, 3)), True),
}


@every_type
@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("backend", ["native", "numba", "reference"])
def test_unpooling_equals_torch(backend, name, dtype):
    import torch

    need(backend)
    pool, ceil = POOLINGS[name]
    rank = len(pool.kernel)
    generator = torch.Generator().manual_seed(3)
    activation = torch.randint(-4, 3, (3, 8, *(11, 13, 9)[:rank]), generator=generator).float().requires_grad_()
    apply = getattr(torch.nn.functional, f"max_pool{rank}d")
    pooled = apply(activation, pool.kernel, pool.strides, pool.pads[:rank], pool.dilations, ceil_mode=ceil)
    pooled_delta = torch.randint(-9, 9, pooled.shape, generator=generator).float()  # whole: sums are exact
    (delta,) = torch.autograd.grad(pooled, activation, pooled_delta)
    a = torch.randn(3, 2, *activation.shape[2:], generator=generator).numpy()
    given = (array.astype(dtype) for array in (a, activation.detach().numpy(), pooled_delta.numpy()))
    pointwise = ConvGeometry((1,) * rank)
    found = gk.unpooled_conv_moments(*given, pointwise, pool, backend=backend)
    expected = gk.conv_moments(a.astype(np.float64), delta.numpy(), pointwise, backend="reference")
    assert_same_statistics(found, expected, TILED[dtype])


@pytest.mark.parametrize("backend", ["native", "numba", "reference"])
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("unpooled")])
def test_a_window_with_nan_spoils_its_sample_alone(backend, name):
    need(backend)
    case = CASES[name]
    arrays = case.arrays()
    clean = case.run(arrays, backend=backend)
    met = case.extra["pool"].windows(case.shapes[1][2:], case.shapes[2][2:])[1]
    for cell in (met[0, 0], met[0, -1], met[-1, 0], met[-1, -1]):
        spoilt = [array.copy() for array in arrays]
        spoilt[1].reshape(*case.shapes[1][:2], -1)[1, 2, cell] = np.nan
        found = case.run(spoilt, backend=backend)
        assert np.isnan(found[1, 1:]).all()
        np.testing.assert_array_equal(np.delete(found, 1, 0), np.delete(clean, 1, 0))


@pytest.mark.parametrize("backend", ["native", "numba", "reference"])
def test_infinite_activations_are_maxima_like_others(backend):
    need(backend)
    case = CASES["unpooled-squares"]
    a, activation, pooled_delta = case.arrays()
    high = np.where(activation > 1, np.float32(np.inf), np.float32(-np.inf))
    expected = case.run([a, np.sign(high), pooled_delta], backend=backend)
    np.testing.assert_array_equal(case.run([a, high, pooled_delta], backend=backend), expected)
    assert np.isfinite(expected).all()
