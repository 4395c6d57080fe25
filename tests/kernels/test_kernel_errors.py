"""The arguments that kernels refuse, and the messages."""

import gradscore_kernels as gk
import numpy as np
import pytest
from gradscore_kernels import ConvGeometry, KernelError, PoolGeometry

from tests.support.kernel_cases import CASES, every_case

A, DELTA = np.ones((2, 4, 6, 6), dtype="f"), np.ones((2, 6, 4, 4), dtype="f")
THREE = ConvGeometry((3, 3))


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype=dtype)


REFUSED = {
    "batch": (lambda: gk.outer_moments(ones(2, 3), ones(3, 3)), r"outer_moments: axis B is 2 in 'a' and 3 in 'delta'"),
    "rank": (lambda: gk.outer_moments(ones(2, 3, 1), ones(2, 3)), r"'a' has shape \[2, 3, 1\], not \[B, n\]"),
    "no axes": (lambda: gk.direct_moments(np.float32(1)), r"'g' has shape \[\], not \[B, \*\]"),
    "positions": (lambda: gk.sequence_moments(ones(2, 3, 4), ones(2, 4, 4)), "axis T is 3 in 'a' and 4 in 'delta'"),
    "empty": (lambda: gk.direct_moments(ones(2, 0)), r"shape \[2, 0\] is empty"),
    "whole numbers": (
        lambda: gk.direct_moments(ones(2, 3, dtype=int)),
        r"int64, not float32 or float64: .*astype\('float32'\)",
    ),
    "half": (lambda: gk.direct_moments(ones(2, 3, dtype=np.float16)), "float16, not float32 or float64"),
    "complex": (lambda: gk.direct_moments(ones(2, 3, dtype=complex)), "complex128, not float32"),
    "missing": (lambda: gk.outer_moments(ones(2, 3)), r"outer_moments: array 'delta' \[B, m\] is missing"),
    "geometry": (lambda: gk.conv_moments(A, DELTA, (3, 3)), r"geometry is a tuple: pass a ConvGeometry\(kernel"),
    "axes": (
        lambda: gk.conv_moments(A[:, :, 0], DELTA, THREE),
        r"'a' has shape \[2, 4, 6\]: a kernel \(3, 3\) needs 4 axes",
    ),
    "groups": (
        lambda: gk.conv_moments(A, DELTA, ConvGeometry((3, 3), groups=4)),
        "6 channels of 'delta' do not divide into 4 groups",
    ),
    "output": (
        lambda: gk.conv_moments(A, DELTA, ConvGeometry((3, 3), strides=(2, 2))),
        r"gives an output of size \[2, 2\], but 'delta' has \[4, 4\]: check strides",
    ),
    "too large a kernel": (lambda: gk.conv_moments(A, DELTA, ConvGeometry((9, 9))), r"output of size \[-2, -2\]"),
    "id": (
        lambda: gk.embedding_moments(np.array([[0, 1], [4, 5]]), ones(2, 2, 3), 5),
        r"sample 1 has id 5 at position 1, outside -5..4: pass the number of rows of the table as vocabulary",
    ),
    "negative id": (
        lambda: gk.embedding_moments(np.array([[-6]]), ones(1, 1, 3), 5),
        "sample 0 has id -6 at position 0",
    ),
    "floating ids": (
        lambda: gk.embedding_moments(ones(1, 1), ones(1, 1, 3), 5),
        "'ids' is float32, not int64 or int32",
    ),
    "vocabulary": (
        lambda: gk.embedding_moments(np.array([[0]]), ones(1, 1, 3), 0),
        "vocabulary is 0: pass the table's number",
    ),
    "threads": (
        lambda: gk.direct_moments(ones(2, 3), threads=0),
        "threads is 0: pass a whole number of 1 or more, or None",
    ),
    "threads type": (lambda: gk.direct_moments(ones(2, 3), threads=1.5), "threads is 1.5"),
    "back end": (
        lambda: gk.direct_moments(ones(2, 3), backend="metal"),
        "no back end is called 'metal': choose auto, native",
    ),
    "kernel rank": (lambda: ConvGeometry((1, 1, 1, 1)), "has 4 axes: convolutions of 1, 2 or 3 dimensions"),
    "strides": (lambda: ConvGeometry((3, 3), strides=(1,)), r"strides \(1,\) has 1 numbers: a kernel \(3, 3\) needs 2"),
    "pads": (lambda: ConvGeometry((3, 3), pads=(1, 1)), r"pads \(1, 1\) has 2 numbers: a kernel \(3, 3\) needs 4"),
    "dilation": (lambda: ConvGeometry((3,), dilations=(0,)), r"dilations \(0,\) must be 1 or more"),
    "pooling": (
        lambda: gk.unpooled_conv_moments(A, DELTA, DELTA, THREE, (2, 2)),
        r"unpooled_conv_moments: pool is a tuple: pass a PoolGeometry\(kernel",
    ),
    "pooled convolution": (
        lambda: gk.unpooled_conv_moments(A, A, A, THREE, PoolGeometry((2, 2))),
        r"output of size \[4, 4\], but 'activation' has \[6, 6\]",
    ),
    "pooled size": (
        lambda: gk.unpooled_conv_moments(A, DELTA, ones(2, 6, 3, 3), THREE, PoolGeometry((3, 3), (2, 2))),
        r"gives an output of size \[1, 1\] \(with ceil_mode \[2, 2\]\), but 'pooled_delta' has \[3, 3\]: check",
    ),
    "pooled axes": (
        lambda: gk.unpooled_conv_moments(A, DELTA, DELTA, THREE, PoolGeometry((3,))),
        r"'activation' has 2 spatial axes and 'pooled_delta' 2, but the pooling's kernel \(3,\) has 1",
    ),
    "pooled filters": (
        lambda: gk.unpooled_conv_moments(A, DELTA, ones(2, 5, 2, 2), THREE, PoolGeometry((3, 3))),
        "axis M is 6 in 'activation' and 5 in 'pooled_delta'",
    ),
    "pooling rank": (lambda: PoolGeometry(()), "has 0 axes: poolings of 1, 2 or 3 dimensions"),
    "pooling pads": (lambda: PoolGeometry((2,), pads=(0, -1)), r"pads \(0, -1\) must be 0 or more"),
    "no groups": (lambda: ConvGeometry((3,), groups=0), "groups is 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_errors_say_what_is_impossible(name):
    call, message = REFUSED[name]
    with pytest.raises(KernelError, match=message):
        call()


def test_errors_are_value_errors():
    assert issubclass(KernelError, ValueError)


@every_case
def test_arrays_may_be_named(case):
    names = {1: ["delta"], 2: ["a", "delta"], 3: ["a", "activation", "pooled_delta"]}[len(case.shapes)]
    names = {"direct_moments": ["g"], "embedding_moments": ["ids", "delta"]}.get(case.kernel, names)
    arrays = case.arrays()
    named = case.function(**dict(zip(names, arrays, strict=True)), **case.extra)
    np.testing.assert_array_equal(named, case.run(arrays))


def test_missing_back_ends_say_how_to_get_them(monkeypatch):
    monkeypatch.setattr("gradscore_kernels.backends.registry.available_backends", lambda: ("reference",))
    with pytest.raises(KernelError, match="back end 'native' is not installed here: reinstall gradscore where a C"):
        CASES["direct"].run(CASES["direct"].arrays(), backend="native")
    with pytest.raises(
        KernelError, match="back end 'numba' is not installed here: pip install numba, or use reference"
    ):
        CASES["direct"].run(CASES["direct"].arrays(), backend="numba")
    with pytest.raises(KernelError, match="neither back end native nor numba is installed: pip install numba"):
        CASES["direct"].run(CASES["direct"].arrays())
    assert gk.simd_level() is None
    assert gk.simd_levels() == ()
