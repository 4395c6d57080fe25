"""Kernels without one of their tricks: the order of products changes, the statistics do not."""

import numpy as np
import pytest
from gradscore_kernels import ConvGeometry, PoolGeometry

from tests.support.kernel_cases import TILED, assert_same_statistics, conv, unpooled

native = pytest.importorskip("gradscore_kernels._native")
CASES = {
    "winograd": conv(3, 16, 16, (13, 13), ConvGeometry((3, 3))),
    "scattered": unpooled(3, 16, 16, (13, 13), ConvGeometry((3, 3)), PoolGeometry((2, 2), (2, 2))),
}


@pytest.mark.parametrize("trick", CASES)
def test_a_trick_that_is_off_changes_the_rounding_alone(trick):
    case = CASES[trick]
    arrays = case.arrays()
    on = case.run(arrays, backend="native")
    native.allow_trick(trick, False)
    try:
        off = case.run(arrays, backend="native")
    finally:
        native.allow_trick(trick, True)
    assert_same_statistics(off, case.run(arrays, backend="reference"), TILED[np.float32])
    assert not np.array_equal(on, off)
    assert np.array_equal(on, case.run(arrays, backend="native"))


def test_an_unknown_trick_is_refused():
    with pytest.raises(ValueError, match="no trick faster"):
        native.allow_trick("faster", False)
