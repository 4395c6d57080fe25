"""The gradients of convolutions and pools over drawn geometries, against torch in float64."""

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from gradscore import Scorer, prepare
from tests.support.fragments import FEATURES, Fragment, check

FEW = settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=40, derandomize=False)
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def scored(fragment, folder, seed=1):
    """Prepare a fragment's model, score two samples and compare every feature."""
    onnx.save(fragment.model(), folder / "c.onnx")
    prepare(folder / "c.onnx", folder / "s.onnx", overwrite=True)
    with Scorer.load(folder / "s.onnx", threads=1) as scorer:
        check(fragment, scorer, np.random.default_rng(seed).standard_normal((2, FEATURES)).astype(np.float32))


def text(op_type, inputs, **attributes):
    settings = ", ".join(f"{name}={value}" for name, value in attributes.items())
    return f"o = {op_type}<{settings}>({inputs})"


@st.composite
def geometries(draw, *, largest_dilation=3, largest_stride=3):
    """Sizes, kernel, strides, dilations and pads that leave at least one output."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    axes = range(rank)
    kernel = [draw(st.integers(1, 3)) for _ in axes]
    strides = [draw(st.integers(1, largest_stride)) for _ in axes]
    dilations = [draw(st.integers(1, largest_dilation)) for _ in axes]
    pads = [draw(st.integers(0, 2)) for _ in range(2 * rank)]
    reach = [(kernel[axis] - 1) * dilations[axis] + 1 for axis in axes]
    least = [max(1, reach[axis] - pads[axis] - pads[axis + rank]) for axis in axes]
    sizes = [draw(st.integers(size, size + 3)) for size in least]
    assume(np.prod(sizes) < 150)
    return sizes, kernel, strides, dilations, pads


def padded(h, pads):
    """Pad the axes after the channels, begins and ends given as ONNX does."""
    rank = len(pads) // 2
    return F.pad(h, [pads[axis + side * rank] for axis in reversed(range(rank)) for side in (0, 1)])


@st.composite
def convolutions(draw):
    sizes, kernel, strides, dilations, pads = draw(geometries())
    groups, inner, outer = draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    outer += groups == 1
    with_bias = draw(st.booleans())
    rank = len(kernel)
    weights = {"w": (groups * outer, inner, *kernel)} | ({"b": (groups * outer,)} if with_bias else {})

    def instead(h, w, b=None):
        return CONVOLUTIONS[rank](padded(h, pads), w, b, strides, 0, dilations, groups)

    settings = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads, "group": groups}
    return Fragment(
        text("Conv", ", ".join(["h", *weights]), **settings), (groups * inner, *sizes), weights, instead=instead
    )


@st.composite
def transposed_convolutions(draw):
    sizes, kernel, strides, dilations, pads = draw(geometries())
    groups, inner, outer = draw(st.sampled_from([1, 1, 2])), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    outer += groups == 1
    rank = len(kernel)
    extra = [draw(st.integers(0, stride - 1)) for stride in strides]
    full = [
        (size - 1) * stride + (width - 1) * dilation + 1 + more
        for size, stride, width, dilation, more in zip(sizes, strides, kernel, dilations, extra, strict=True)
    ]
    assume(all(full[axis] - pads[axis] - pads[axis + rank] > 0 for axis in range(rank)))
    assume(np.prod(full) < 150)
    weights = {"w": (groups * inner, outer, *kernel)} | ({"b": (groups * outer,)} if draw(st.booleans()) else {})

    def instead(h, w, b=None):
        whole = TRANSPOSED[rank](h, w, b, strides, 0, extra, groups, dilations)
        window = [slice(pads[axis], whole.shape[2 + axis] - pads[axis + rank]) for axis in range(rank)]
        return whole[:, :, *window]

    settings = {
        "kernel_shape": kernel,
        "strides": strides,
        "dilations": dilations,
        "pads": pads,
        "group": groups,
        "output_padding": extra,
    }
    return Fragment(
        text("ConvTranspose", ", ".join(["h", *weights]), **settings),
        (groups * inner, *sizes),
        weights,
        instead=instead,
    )


@st.composite
def pool_geometries(draw, *, largest_dilation):
    """As torch pools them: the same padding on both sides, of at most half the kernel."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    strides = [draw(st.integers(1, 3)) for _ in range(rank)]
    dilations = [draw(st.integers(1, largest_dilation)) for _ in range(rank)]
    pads = [draw(st.integers(0, size // 2)) for size in kernel]
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    sizes = [draw(st.integers(size, size + 3)) for size in reach]
    ceil = draw(st.booleans())
    for size, stride, pad, width in zip(sizes, strides, pads, reach, strict=True):
        # a last window that starts in the padding counts in ONNX and not in torch
        assume(not ceil or -(-(size + 2 * pad - width) // stride) * stride < size + pad)
    return sizes, kernel, strides, dilations, pads, ceil


@st.composite
def max_pools(draw):
    sizes, kernel, strides, dilations, pads, ceil = draw(pool_geometries(largest_dilation=2))

    def instead(h):
        return MAX_POOLS[len(kernel)](h, kernel, strides, pads, dilations, ceil)

    settings = {
        "kernel_shape": kernel,
        "strides": strides,
        "dilations": dilations,
        "pads": pads * 2,
        "ceil_mode": int(ceil),
    }
    return Fragment(text("MaxPool", "h", **settings), (2, *sizes), instead=instead)


@st.composite
def average_pools(draw):
    sizes, kernel, strides, _, pads, ceil = draw(pool_geometries(largest_dilation=1))
    counted = draw(st.booleans())

    def instead(h):
        return AVERAGE_POOLS[len(kernel)](h, kernel, strides, pads, ceil, counted)

    settings = {
        "kernel_shape": kernel,
        "strides": strides,
        "pads": pads * 2,
        "ceil_mode": int(ceil),
        "count_include_pad": int(counted),
    }
    return Fragment(text("AveragePool", "h", **settings), (2, *sizes), instead=instead)


DRAWN = {
    "conv": convolutions(),
    "conv_transpose": transposed_convolutions(),
    "max_pool": max_pools(),
    "average_pool": average_pools(),
}


@pytest.mark.parametrize("kind", DRAWN)
def test_a_drawn_geometry(kind, tmp_path):
    FEW(given(DRAWN[kind])(lambda fragment: scored(fragment, tmp_path)))()


@pytest.mark.slow
@pytest.mark.parametrize("kind", DRAWN)
def test_many_drawn_geometries(kind, tmp_path):
    MANY(given(DRAWN[kind])(lambda fragment: scored(fragment, tmp_path)))()
