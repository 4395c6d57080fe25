"""Merging accumulators, and computing statistics from them."""

import gradscore_kernels as gk
import numpy as np
import pytest
import scipy.stats
from gradscore_kernels import KernelError, direct_moments, merge, statistics
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.kernel_cases import assert_same_statistics


def reference(g):
    return direct_moments(np.asarray(g, dtype=np.float64), backend="reference")


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.integers(-30, 10), st.integers(0, 2**32 - 1))
def test_merging_parts_gives_the_whole(sizes, exponent, seed):
    rng = np.random.default_rng(seed)
    parts = [(rng.normal(size=(3, size)) * rng.gamma(1) + rng.normal() * 10) * 10.0**exponent for size in sizes]
    whole = reference(np.concatenate(parts, axis=1))
    assert_same_statistics(merge([reference(part) for part in parts]), whole, 1e-7)


def test_merging_is_the_whole_for_equal_constants():
    for value in (0.1, 1e-30, 7.7e9):
        merged = merge([reference(np.full((2, size), value)) for size in (3, 700, 11)])
        np.testing.assert_array_equal(merged[:, 6:], value)
        np.testing.assert_array_equal(statistics(merged)[:, 6:], 0)


def test_merging_leaves_its_arguments_alone_and_keeps_not_a_number_in_its_row():
    g = np.random.default_rng(0).normal(size=(3, 50))
    broken = g.copy()
    broken[1, 4] = np.nan
    parts = [reference(g), reference(broken)]
    before = [part.copy() for part in parts]
    merged = merge(parts)
    for part, copy in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part, copy)
    assert merged[1, 0] == 100
    assert np.isnan(merged[1, 1:]).all()
    assert np.isfinite(merged[[0, 2]]).all()
    alone = merge(parts[:1])
    alone[:] = 0
    np.testing.assert_array_equal(parts[0], before[0])


@pytest.mark.parametrize("exponent", [-75, -60, -30, 0, 10, 37, 70])
@pytest.mark.parametrize("offset", [0, 3, 100])
def test_statistics_are_those_of_scipy(exponent, offset):
    unit = np.random.default_rng(5).gamma(2, size=(4, 999)) + offset
    scale = 10.0**exponent
    found = statistics(reference(unit * scale))
    expected = {
        "l1": np.abs(unit).sum(1) * scale,
        "l2": np.linalg.norm(unit, axis=1) * scale,
        "min": unit.min(1) * scale,
        "max": unit.max(1) * scale,
        "mean": unit.mean(1) * scale,
        "std": unit.std(1) * scale,
        "skewness": scipy.stats.skew(unit, axis=1),
        "kurtosis": scipy.stats.kurtosis(unit, axis=1),
    }
    assert tuple(expected) == gk.STATISTICS
    np.testing.assert_allclose(found, np.stack(list(expected.values()), axis=1), rtol=1e-9)


def test_rounding_of_a_constant_is_no_spread():
    accumulators = np.array([[4, 4, 1.0, 4e-32, 1e-40, 1e-60, 1, 1], [4, 4, 1.0, 4e-20, 1e-30, 1e-39, 1, 1]])
    found = statistics(accumulators)
    np.testing.assert_array_equal(found[0, 6:], 0)
    assert (found[1, 6:] != 0).all()


@pytest.mark.parametrize("broken", [np.zeros((3, 7)), np.zeros(8), np.zeros((2, 8), dtype=np.float32), [[0.0] * 8]])
def test_what_is_no_accumulator_is_refused(broken):
    with pytest.raises(KernelError, match=r"\[B, 8\] \(n, abs_sum, mean"):
        statistics(broken)
    with pytest.raises(KernelError, match=r"\[B, 8\]"):
        merge([np.ones((2, 8)), broken])


def test_what_does_not_merge_is_refused():
    with pytest.raises(KernelError, match="nothing to merge"):
        merge([])
    with pytest.raises(KernelError, match=r"accumulators of \[2, 3\] samples do not merge"):
        merge([np.ones((2, 8)), np.ones((3, 8))])


@pytest.mark.parametrize("backend", [name for name in ("native", "numba") if name in gk.available_backends()])
def test_layer_statistics_are_those_of_each_layers_merged_parts_and_of_all(backend):
    rng = np.random.default_rng(3)
    gradients = [rng.normal(offset, 1, (5, count)) for offset, count in ((0, 40), (3, 7), (-1, 100), (0, 1))]
    gradients[1][2] = np.nan
    gradients[2][4] = 0.25
    layers, scale = [0, 0, 1, 2], np.array([1, 0.5, 2, 1e-30, 0])
    accumulators = [gk.direct_moments(g, backend="reference") for g in gradients]
    found = gk.layer_statistics(accumulators, layers, scale, backend=backend).reshape(5, 4, 8)
    for row, parts in enumerate([gradients[:2], gradients[2:3], gradients[3:], gradients]):
        expected = statistics(gk.direct_moments(np.concatenate(parts, axis=1), backend="reference"))
        expected[:, :6] *= scale[:, None]
        np.testing.assert_allclose(found[:, row], expected, rtol=1e-9, atol=1e-12 * np.nanmax(np.abs(expected)))


def test_layer_statistics_refuse_what_does_not_belong_together():
    part = gk.direct_moments(np.ones((3, 2)))
    for accumulators, layers, scale in (
        ([], [], np.ones(3)),
        ([part], [1], np.ones(3)),
        ([part, part], [0, 2], np.ones(3)),
        ([part], [0], np.ones(2)),
        ([part], [0], np.ones((3, 1))),
    ):
        with pytest.raises(gk.KernelError, match="layer_statistics: "):
            gk.layer_statistics(accumulators, layers, scale)
