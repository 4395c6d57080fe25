"""Distances, one row at a time by their formulas; covariances against scikit-learn; ONNX against Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf

from gradscore.verdict.learning.heads.distances import (
    FEWEST_PER_CLASS,
    LARGEST_BANK,
    LEAST_SQUARE,
    MOST_CLASSES,
    NEAREST,
    Gaussians,
    Neighbours,
    class_members,
    shrunk,
)
from tests.support.planted import extremes, run


def normal(count, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ (np.eye(width) + 0.5 * rng.normal(size=(width, width)))


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


# ---------------------------------------------------------------- covariances


@pytest.mark.parametrize(("count", "width"), [(200, 5), (30, 40), (12, 3), (500, 1)])
def test_a_shrunk_covariance_is_scikit_learns(count, width):
    x = normal(count, width)
    x -= x.mean(axis=0)
    expected, _ = ledoit_wolf(x, assume_centered=True)
    np.testing.assert_allclose(shrunk(x[None], np.array([width]))[0], expected, rtol=1e-9, atol=1e-12)


def test_groups_of_unequal_width_are_shrunk_apart():
    wide, narrow = normal(100, 6), normal(100, 2, 1)
    x = np.stack([wide, np.c_[narrow, np.zeros((100, 4))]])
    x -= x.mean(axis=1, keepdims=True)
    found = shrunk(x, np.array([6, 2]))
    for group, size in ((0, 6), (1, 2)):
        expected, _ = ledoit_wolf(x[group, :, :size], assume_centered=True)
        np.testing.assert_allclose(found[group, :size, :size], expected, rtol=1e-9, atol=1e-12)


def test_rows_that_are_all_equal_have_no_covariance():
    assert not shrunk(np.zeros((1, 20, 3)), np.array([3])).any()


# ---------------------------------------------------------------- classes


def test_classes_of_few_rows_and_rows_without_a_class_share_the_first_mean():
    label = np.r_[np.full(30, 7), np.full(FEWEST_PER_CLASS, 2), np.full(FEWEST_PER_CLASS - 1, 5), np.full(3, -1)]
    members = class_members(label)
    assert members.shape == (len(label), 3)
    assert (members.sum(axis=1) == 1).all()
    np.testing.assert_array_equal(members[:, 0] == 1, np.isin(label, [5, -1]))
    np.testing.assert_array_equal(members[:, 1] == 1, label == 7)


@pytest.mark.parametrize("label", [np.full(40, -1), np.full(40, 3), np.arange(40)])
def test_without_several_classes_there_is_one_mean(label):
    np.testing.assert_array_equal(class_members(label), np.ones((40, 1)))


def test_the_least_frequent_of_very_many_classes_share_a_mean():
    label = np.repeat(np.arange(MOST_CLASSES + 20), FEWEST_PER_CLASS + (np.arange(MOST_CLASSES + 20) < 5))
    members = class_members(label)
    assert members.shape[1] == MOST_CLASSES
    assert members[:, 0].sum() == 21 * FEWEST_PER_CLASS
    assert members[:, 1:].sum(axis=0).min() >= FEWEST_PER_CLASS


# ---------------------------------------------------------------- Mahalanobis distances

GROUPS = (np.array([0, 3, 4]), np.array([1]), np.array([2, 5, 6, 7]))


def by_hand(z, label, groups, x):
    """Log Mahalanobis distances of one row x to the nearest class mean, group by group."""
    out = []
    for group in groups:
        part = z[:, group]
        means = {name: part[label == name].mean(axis=0) for name in np.unique(label)}
        centred = part - np.stack([means[name] for name in label])
        inverse = np.linalg.inv(ledoit_wolf(centred, assume_centered=True)[0])
        squares = [(x[group] - mean) @ inverse @ (x[group] - mean) for mean in means.values()]
        out.append(0.5 * np.log(min(squares)))
    return out


def test_mahalanobis_distances_one_row_at_a_time():
    z, label = normal(150, 8), np.arange(150) % 3
    found = Gaussians.fit(z, GROUPS, class_members(label))
    fresh = np.vstack([normal(40, 8, 9), 30 * normal(5, 8, 10)])
    expected = [by_hand(z, label, GROUPS, x) for x in fresh]
    np.testing.assert_allclose(found(fresh), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(run(found.emit, fresh), found(fresh), rtol=0, atol=1e-10)
    np.testing.assert_array_equal(found(fresh[:1]), found(fresh[:1].copy()))


def test_a_constant_direction_stays_finite_and_tells_what_leaves_it():
    z = normal(100, 4)
    z[:, 2] = 0.25
    z[:, 3] = z[:, 0]
    found = Gaussians.fit(z, (np.arange(4),), np.ones((100, 1)))
    inside, outside = z[:1].copy(), z[:1].copy()
    outside[0, 2] += 1
    assert found(outside)[0, 0] > found(inside)[0, 0] + 1
    for one in (inside, outside):
        np.testing.assert_allclose(run(found.emit, one), found(one), rtol=0, atol=1e-9)


def test_rows_that_are_all_equal_are_at_no_distance():
    found = Gaussians.fit(np.full((30, 2), 0.5), (np.arange(2),), np.ones((30, 1)))
    assert found(np.full((1, 2), 0.5))[0, 0] == pytest.approx(np.log(LEAST_SQUARE) / 2)
    assert np.isfinite(found(np.array([[1e300, -1e300]]))).all()


def test_rows_far_from_all_others_in_python_and_in_onnx():
    z, label = normal(150, 8), np.arange(150) % 3
    found = Gaussians.fit(z, GROUPS, class_members(label))
    fresh = np.vstack([extremes(50, 8), np.full((1, 8), 1e300), np.full((1, 8), -1e308)])
    assert np.isfinite(found(fresh)).all()
    np.testing.assert_allclose(run(found.emit, fresh), found(fresh), rtol=0, atol=1e-9)


# ---------------------------------------------------------------- nearest neighbours


@pytest.mark.parametrize("count", [3, 200])
def test_the_kth_neighbour_one_row_at_a_time(count):
    bank, fresh = unit(normal(count, 5)), unit(normal(30, 5, 4))
    found = Neighbours.fit(bank)
    k = min(NEAREST, count)
    expected = [[np.log(np.sort(np.linalg.norm(bank - x, axis=1))[k - 1])] for x in fresh]
    np.testing.assert_allclose(found(fresh), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(run(found.emit, fresh), found(fresh), rtol=0, atol=1e-9)


def test_a_large_bank_is_a_sample_drawn_by_the_seed():
    vectors = unit(normal(LARGEST_BANK + 300, 4))
    one, same, other = (Neighbours.fit(vectors, seed=seed).bank for seed in (3, 3, 4))
    assert one.shape == (LARGEST_BANK, 4)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert {tuple(row) for row in one} <= {tuple(row) for row in vectors}


def test_a_row_that_is_in_the_bank_many_times_is_at_the_least_distance():
    bank = np.tile([[1.0, 0.0]], (20, 1))
    found = Neighbours.fit(bank)
    assert found(bank[:1])[0, 0] == pytest.approx(np.log(LEAST_SQUARE) / 2)
    np.testing.assert_allclose(found(np.zeros((1, 2))), np.log(2) / 2)  # a vector of zeros has no direction


# ---------------------------------------------------------------- whatever the shapes


@given(
    st.integers(12, 40), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 3), st.integers(-300, 300),
    st.integers(0, 2**31),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_distances_are_finite_whatever_is_drawn(count, widths, classes, exponent, seed):
    rng = np.random.default_rng(seed)
    width = sum(widths)
    z = rng.normal(size=(count, width)) * (rng.random(width) < 0.8)
    ends = np.cumsum(widths)
    groups = [np.arange(end - size, end) for end, size in zip(ends, widths, strict=True)]
    members = np.eye(classes)[np.r_[np.arange(classes), rng.integers(0, classes, count - classes)]]
    fresh = np.vstack(
        [z, rng.normal(size=(5, width)) * 10.0**exponent, np.zeros((1, width)), np.full((1, width), 1e300)]
    )
    found = Gaussians.fit(z, groups, members)
    distances = found(fresh)
    assert distances.shape == (len(fresh), len(groups))
    assert np.isfinite(distances).all()
    near = Neighbours.fit(unit(z + 1e-3))
    assert np.isfinite(near(unit(fresh[:count] + 1e-3))).all()
