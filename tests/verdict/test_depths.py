"""Scales of columns at each depth, against their formulas, whatever columns a table has."""

from dataclasses import replace

import numpy as np
import pytest

from gradscore.verdict.learning.heads.depths import Depths, gradient_columns, layer_groups, pooled_groups
from gradscore.verdict.learning.transforms import SMALLEST_SCALE
from tests.support.planted import HEAD, NEW_NAMES, OLD_NAMES, extremes, rows, run

NAMES = ("a.l1", "a.mean", "a.activation.l1", "b.c.l1", "b.c.pooled.1", "b.c.pooled.0", "all.l2", "odd", "a.odd", *HEAD)


def named(names, columns):
    return [[names[column] for column in group] for group in columns]


def test_columns_are_grouped_by_layer():
    assert named(NAMES, layer_groups(NAMES)) == [["a.l1", "a.mean"], ["a.activation.l1"], ["b.c.l1"], ["all.l2"]]
    assert named(NAMES, pooled_groups(NAMES)) == [["b.c.pooled.1", "b.c.pooled.0"]]
    assert named(NAMES, [gradient_columns(NAMES)]) == [["a.l1", "a.mean", "b.c.l1", "all.l2"]]


@pytest.mark.parametrize("names", [HEAD, (), ("penultimate.0", "logits.1", "energy")])
def test_tables_without_such_columns_have_no_groups(names):
    assert (layer_groups(names), pooled_groups(names)) == ([], [])
    assert gradient_columns(names).dtype == np.int64
    assert not len(gradient_columns(names))


def by_hand(train, column, x):
    """Standardised signed logarithm of one number."""
    values = train[:, column]
    minority = min(np.mean(values > 0), np.mean(values < 0))
    scale = max(SMALLEST_SCALE, np.quantile(np.abs(values), max(0.01, minority)))
    logs = np.sign(values) * np.log1p(np.abs(values) / scale)
    return (np.sign(x) * np.log1p(np.abs(x) / scale) - logs.mean()) / logs.std()


def test_scales_one_row_at_a_time():
    train, fresh = rows(kinds=0), rows(40, 2, 10, seed=5)
    depths = Depths.fit(train)
    scaled = depths(fresh.features)
    columns = depths.statistics.columns
    assert len(depths.groups) == 5
    for row in range(5):
        x = fresh.features[row]
        np.testing.assert_allclose(
            scaled.statistics[row], [by_hand(train.features, column, x[column]) for column in columns], atol=1e-9
        )
        for pooled, direction, group in zip(scaled.pooled, scaled.directions, pooled_groups(train.names), strict=True):
            part = train.features[:, group]
            np.testing.assert_allclose(pooled[row], (x[group] - part.mean(axis=0)) / part.std(axis=0), atol=1e-9)
            np.testing.assert_allclose(direction[row], x[group] / np.sqrt((x[group] ** 2).sum()), atol=1e-12)


def test_groups_point_at_the_columns_of_their_layer_although_constant_ones_are_left_out():
    train = rows(kinds=0)
    features = train.features.copy()
    constant = [train.names.index(name) for name in ("conv.l1", "conv.kurtosis", "fc.mean", "conv.pooled.2")]
    constant += [column for column, name in enumerate(train.names) if name.startswith("all.")]
    features[:, constant] = 3.25
    depths = Depths.fit(replace(train, features=features))
    kept = [[train.names[column] for column in depths.statistics.columns[group]] for group in depths.groups]
    assert [len(group) for group in kept] == [6, 7, 8, 8]
    for group, layer in zip(kept, ("conv.", "fc.", "conv.activation.", "fc.activation."), strict=True):
        assert all(name.rpartition(".")[0] + "." == layer for name in group)
    assert len(depths.pooled[0].columns) == 5


@pytest.mark.parametrize("names", [OLD_NAMES, NEW_NAMES, (*OLD_NAMES, *(f"fc.pooled.{i}" for i in range(3)))])
def test_onnx_gives_the_same(names):
    train = rows(kinds=0, names=names)
    depths = Depths.fit(train)
    fresh = np.vstack([rows(20, 1, 5, names=names, seed=8).features, extremes(60, len(names))])

    def emit_into(emit, features):
        made = depths.emit(emit, features)
        return made.statistics, *made.pooled, *made.directions

    found = depths(fresh)
    expected = (found.statistics, *found.pooled, *found.directions)
    actual = run(emit_into, fresh)
    for one, other in zip([actual] if len(expected) == 1 else actual, expected, strict=True):
        assert np.isfinite(other).all()
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-9)


def test_directions_of_any_length():
    train = rows(kinds=0)
    group = pooled_groups(train.names)[0]
    fresh = np.zeros((4, len(train.names)))
    fresh[1, group] = 1e-9
    fresh[2, group] = 1e300
    fresh[3, group] = -1e-300
    lengths = np.linalg.norm(Depths.fit(train)(fresh).directions[0], axis=1)
    np.testing.assert_allclose(lengths, [0, 1, 1, 0], atol=1e-9)
