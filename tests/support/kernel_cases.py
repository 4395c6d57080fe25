"""One table of kernel calls, for the tests of correctness, determinism and errors."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gradscore_kernels as gk
import numpy as np
import pytest
from gradscore_kernels import ConvGeometry, PoolGeometry

FAST_BACKENDS = ("native", "numba")
EXACT = 1e-8  # reduced from the given numbers, in float64
TILED = {np.float32: 1e-5, np.float64: 1e-8}  # summed over positions in the arrays' own type


@dataclass(frozen=True)
class Case:
    """A kernel, the shapes of its arrays and its other arguments."""

    kernel: str
    shapes: tuple[tuple[int, ...], ...]
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def function(self) -> Callable[..., np.ndarray]:
        return getattr(gk, self.kernel)

    @property
    def spec(self) -> gk.KernelSpec:
        return next(spec for spec in gk.KERNELS.values() if spec.function == self.kernel)

    @property
    def tiled(self) -> bool:
        return self.kernel in {"conv_moments", "unpooled_conv_moments", "sequence_moments"}

    def arrays(self, dtype=np.float32, seed=0):
        rng = np.random.default_rng(seed)
        arrays = [rng.gamma(2, size=shape).astype(dtype) - dtype(1) for shape in self.shapes]
        if self.kernel == "embedding_moments":
            rows = self.extra["vocabulary"]
            arrays[0] = rng.integers(-rows, rows, self.shapes[0])
        if self.kernel == "unpooled_conv_moments":
            arrays[1] = arrays[1].round()  # many windows have their maximum twice
        return arrays

    def run(self, arrays, **options):
        return self.function(*arrays, **self.extra, **options)


def conv(batch, channels, filters, spatial, geometry):
    shapes = ((batch, channels, *spatial), (batch, filters, *geometry.output(spatial)))
    return Case("conv_moments", shapes, {"geometry": geometry})


def unpooled(batch, channels, filters, spatial, geometry, pool, *, ceil=False):
    out = geometry.output(spatial)
    shapes = (
        (batch, channels, *spatial),
        (batch, filters, *out),
        (batch, filters, *(s[ceil] for s in pool.sizes(out))),
    )
    return Case("unpooled_conv_moments", shapes, {"geometry": geometry, "pool": pool})


def sequence(batch, positions, inputs, outputs):
    return Case("sequence_moments", ((batch, positions, inputs), (batch, positions, outputs)))


SAME = (1, 1, 1, 1)
SQUARES = PoolGeometry((2, 2), (2, 2))
CASES = {
    "outer": Case("outer_moments", ((5, 20), (5, 7))),
    "outer-wide": Case("outer_moments", ((3, 9001), (3, 53))),
    "outer-1x1": Case("outer_moments", ((4, 1), (4, 1))),
    "conv-first": conv(4, 1, 16, (14, 14), ConvGeometry((3, 3))),
    "conv-middle": conv(4, 16, 16, (13, 13), ConvGeometry((3, 3))),
    "conv-last": conv(4, 16, 16, (5, 5), ConvGeometry((3, 3))),
    "conv-same": conv(3, 24, 40, (8, 8), ConvGeometry((3, 3), pads=SAME)),
    "conv-one-position": conv(3, 6, 5, (3, 3), ConvGeometry((3, 3))),
    "conv-small": conv(3, 4, 6, (6, 5), ConvGeometry((3, 2), pads=SAME, groups=2)),
    "conv-pointwise": conv(3, 30, 70, (5, 6), ConvGeometry((1, 1))),
    "conv-few-positions": conv(3, 16, 80, (4, 4), ConvGeometry((3, 3), pads=SAME)),
    "conv-many-positions": conv(2, 2, 3, (45, 47), ConvGeometry((3, 3))),
    "conv-uneven": conv(3, 3, 10, (20, 21), ConvGeometry((5, 4), (2, 3), (1, 2), (1, 2, 0, 3))),
    "conv-skips": conv(3, 3, 4, (11, 9), ConvGeometry((1, 2), (3, 2))),
    "conv-squares-odd": conv(2, 13, 37, (9, 12), ConvGeometry((3, 3), pads=(0, 1, 1, 2))),
    "conv-squares-groups": conv(2, 20, 18, (7, 6), ConvGeometry((3, 3), pads=SAME, groups=2)),
    "conv-squares-crop": conv(2, 9, 8, (12, 11), ConvGeometry((3, 3), pads=(-1, 1, -2, 0))),
    "conv-squares-crop-only": conv(2, 9, 8, (12, 11), ConvGeometry((3, 3), pads=(-1, 0, -2, -3))),
    "conv-squares-one-row": conv(2, 12, 24, (3, 9), ConvGeometry((3, 3))),
    "conv-squares-many": conv(2, 8, 20, (45, 31), ConvGeometry((3, 3), pads=SAME)),
    "conv-crop": conv(3, 2, 4, (12, 11), ConvGeometry((3, 3), pads=(-1, 1, -2, 0))),
    "conv-crop-only": conv(3, 2, 4, (12, 11), ConvGeometry((3, 3), pads=(-1, 0, -2, -3))),
    "conv-groups": conv(3, 12, 18, (9, 9), ConvGeometry((3, 3), pads=SAME, groups=3)),
    "conv-many-groups": conv(3, 64, 128, (6, 5), ConvGeometry((3, 3), pads=SAME, groups=32)),
    "conv-depthwise": conv(3, 21, 21, (9, 8), ConvGeometry((3, 3), (2, 2), pads=SAME, groups=21)),
    "conv-depthwise-valid": conv(3, 20, 40, (9, 8), ConvGeometry((3, 3), groups=20)),
    "conv-depthwise-long": conv(2, 3, 6, (45, 47), ConvGeometry((3, 3), pads=SAME, groups=3)),
    "conv-depthwise-same": conv(3, 19, 38, (9, 8), ConvGeometry((3, 3), pads=SAME, groups=19)),
    "conv-depthwise-uneven": conv(2, 5, 5, (11, 8), ConvGeometry((5, 3), (1, 1), (1, 2), pads=(3, 0, 1, 4), groups=5)),
    "conv-depthwise-even": conv(2, 5, 5, (3, 8), ConvGeometry((4, 2), pads=(3, 1, 0, 0), groups=5)),
    "conv-depthwise-1d": conv(2, 7, 14, (40,), ConvGeometry((5,), dilations=(2,), pads=(4, 4), groups=7)),
    "conv-depthwise-3d": conv(2, 5, 5, (4, 3, 6), ConvGeometry((3, 3, 3), pads=(1,) * 6, groups=5)),
    "conv-one-filter": conv(3, 7, 1, (12, 11), ConvGeometry((3, 3), pads=SAME)),
    "conv-1d": conv(3, 4, 9, (40,), ConvGeometry((5,), (2,), (3,), (4, 2))),
    "conv-3d": conv(2, 4, 6, (7, 8, 9), ConvGeometry((3, 2, 3), (1, 2, 1), (2, 1, 1), (1, 0, 2, 1, 1, 0), groups=2)),
    "unpooled-squares": unpooled(4, 1, 16, (28, 28), ConvGeometry((3, 3)), SQUARES),
    "unpooled-small": unpooled(
        3, 2, 5, (6, 7), ConvGeometry((2, 2)), PoolGeometry((3, 2), (2, 1), pads=SAME), ceil=True
    ),
    "unpooled-wide-squares": unpooled(2, 14, 16, (12, 13), ConvGeometry((3, 3)), SQUARES),
    "unpooled-squares-odd": unpooled(4, 3, 5, (9, 17), ConvGeometry((3, 3)), SQUARES),
    "unpooled-squares-narrow": unpooled(4, 3, 5, (5, 6), ConvGeometry((1, 1)), SQUARES),
    "unpooled-squares-ceil": unpooled(4, 3, 5, (9, 17), ConvGeometry((3, 3)), SQUARES, ceil=True),
    "unpooled-squares-middle": unpooled(3, 16, 19, (13, 13), ConvGeometry((3, 3)), SQUARES),
    "unpooled-squares-same": unpooled(2, 5, 9, (18, 70), ConvGeometry((3, 3), pads=SAME), SQUARES),
    "unpooled-squares-groups": unpooled(
        2, 6, 10, (15, 12), ConvGeometry((3, 2), (1, 2), (2, 1), (1, -1, 0, 2), groups=2), SQUARES
    ),
    "unpooled-squares-dilated": unpooled(2, 20, 7, (12, 13), ConvGeometry((2, 3), (1, 1), (1, 2)), SQUARES),
    "unpooled-pairs-1d": unpooled(3, 4, 9, (43,), ConvGeometry((5,), (2,), pads=(1, 3)), PoolGeometry((2,), (2,))),
    "unpooled-pairs-3d": unpooled(2, 2, 6, (6, 8, 10), ConvGeometry((2, 2, 2)), PoolGeometry((2, 2, 2), (2, 2, 2))),
    "unpooled-pairs-along": unpooled(3, 3, 17, (8, 13), ConvGeometry((3, 3)), PoolGeometry((1, 2), (1, 2))),
    "unpooled-fours": unpooled(3, 2, 5, (14, 15), ConvGeometry((3, 3)), PoolGeometry((4, 4), (4, 4))),
    "unpooled-many-windows": unpooled(2, 1, 3, (45, 47), ConvGeometry((5, 5)), SQUARES),
    "unpooled-one-column": unpooled(2, 3, 4, (9, 1), ConvGeometry((3, 1)), PoolGeometry((2, 1), (2, 1))),
    "unpooled-stem": unpooled(
        3, 3, 24, (17, 18), ConvGeometry((7, 7), (2, 2), pads=(3, 3, 3, 3)), PoolGeometry((3, 3), (2, 2), pads=SAME)
    ),
    "unpooled-overlap": unpooled(3, 4, 6, (8, 9), ConvGeometry((3, 3), pads=SAME, groups=2), PoolGeometry((3, 2))),
    "unpooled-dilated": unpooled(
        3, 2, 70, (9, 8), ConvGeometry((2, 2)), PoolGeometry((2, 3), (3, 1), (2, 2), (1, 2, 0, 1)), ceil=True
    ),
    "unpooled-depthwise": unpooled(3, 40, 40, (9, 8), ConvGeometry((3, 3), groups=40), SQUARES),
    "unpooled-1d": unpooled(3, 4, 9, (40,), ConvGeometry((5,), (2,)), PoolGeometry((3,), (2,), pads=(1, 1))),
    "unpooled-3d": unpooled(2, 2, 6, (6, 7, 8), ConvGeometry((2, 2, 2)), PoolGeometry((2, 2, 2), (2, 2, 2)), ceil=True),
    "sequence": sequence(3, 64, 32, 48),
    "sequence-one-position": sequence(4, 1, 30, 40),
    "sequence-few-positions": sequence(3, 5, 30, 70),
    "sequence-long": sequence(2, 300, 13, 17),
    "sequence-small": sequence(3, 6, 13, 11),
    "sequence-narrow": sequence(3, 20, 3, 1),
    "sequence-narrow-long": sequence(2, 1100, 5, 2),
    "direct": Case("direct_moments", ((5, 3, 7, 2),)),
    "direct-long": Case("direct_moments", ((3, 30011),)),
    "direct-one": Case("direct_moments", ((5, 1),)),
    "position-sum": Case("position_sum_moments", ((4, 19, 5, 7),)),
    "position-sum-small": Case("position_sum_moments", ((3, 9, 5, 4),)),
    "position-sum-none": Case("position_sum_moments", ((4, 19),)),
    "sequence-sum": Case("sequence_sum_moments", ((4, 33, 19),)),
    "sequence-sum-small": Case("sequence_sum_moments", ((3, 7, 9),)),
    "embedding": Case("embedding_moments", ((4, 12), (4, 12, 9)), {"vocabulary": 7}),
    "embedding-sparse": Case("embedding_moments", ((3, 6), (3, 6, 5)), {"vocabulary": 1000}),
    "embedding-long": Case("embedding_moments", ((2, 300), (2, 300, 70)), {"vocabulary": 100}),
}


def small_cases(most):
    """Return the cases whose arrays together hold at most this many numbers."""
    return {name: case for name, case in CASES.items() if sum(int(np.prod(shape)) for shape in case.shapes) <= most}


every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
every_backend = pytest.mark.parametrize("backend", FAST_BACKENDS)
every_type = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def need(backend):
    """Skip the test where the back end is not installed."""
    if backend not in gk.available_backends():
        pytest.skip(f"back end {backend} is not installed")


def assert_same_statistics(found, expected, tolerance):
    """Compare accumulators by their statistics.

    Norms and standard deviation are compared relative to themselves, mean and extremes relative to the root mean square.
    Skewness and kurtosis are compared relative to 1 + |skewness| and 3 + |kurtosis|. Where the mean is more than a hundred
    standard deviations, the tolerance of the last three statistics grows in proportion.
    """
    n, root = expected[:, 0], np.sqrt(expected[:, 0])
    np.testing.assert_array_equal(found[:, 0], n)
    x, y = gk.statistics(found), gk.statistics(expected)
    rms = y[:, 1] / root
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.nan_to_num(rms / (100 * y[:, 5]), nan=1, posinf=1).clip(1, 1e9)  # 1 without any spread
    scale = np.stack([y[:, 0], y[:, 1], rms, rms, rms, y[:, 5], 1 + abs(y[:, 6]), 3 + abs(y[:, 7])], axis=1)
    scale[:, 5:] *= far[:, None]
    scale[:, 2:4] += np.abs(y[:, 2:4])
    difference = np.abs(x - y)
    wrong = ~((difference <= tolerance * scale) | (np.isnan(x) & np.isnan(y)))
    worst = [f"row {b} {gk.STATISTICS[s]}: {x[b, s]!r} is not {y[b, s]!r}" for b, s in np.argwhere(wrong)]
    assert not worst, worst
