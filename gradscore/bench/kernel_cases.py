"""The measured kernel calls, each with its work in the unit of its limit."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import gradscore_kernels as kernels
import numpy as np
from gradscore_kernels import ConvGeometry, PoolGeometry
from numpy.typing import NDArray

from gradscore.bench import limits

SAME = (1, 1, 1, 1)


@dataclass(frozen=True)
class KernelCase:
    """One kernel call: the kernel, the shapes of its arrays, and its other arguments."""

    kernel: str
    shapes: tuple[tuple[int, ...], ...]
    extra: dict[str, Any] = field(default_factory=dict)

    def arrays(self) -> list[NDArray[Any]]:
        """Draw the arrays, with a fixed seed."""
        rng = np.random.default_rng(0)
        arrays: list[NDArray[Any]] = [rng.standard_normal(shape, dtype=np.float32) for shape in self.shapes]
        if self.kernel == "embedding_moments":
            arrays[0] = rng.integers(0, self.extra["vocabulary"], self.shapes[0])
        return arrays

    def call(self, arrays: list[NDArray[Any]], backend: str) -> NDArray[np.float64]:
        """Run the kernel on one core."""
        function: Callable[..., NDArray[np.float64]] = getattr(kernels, self.kernel)
        return function(*arrays, **self.extra, backend=backend, threads=1)

    @property
    def work(self) -> float:
        """Work of the call: GFLOP of a tile kernel, or GB read by a streaming kernel."""
        return WORK.get(self.kernel, _gigabytes)(self)

    @property
    def limit(self) -> limits.Limit:
        """The limit of the machine for this kind of work."""
        return limits.multiply() if self.kernel in WORK else limits.read()


def _gigabytes(case: KernelCase) -> float:
    return (
        sum(
            prod(shape) * (8 if case.kernel == "embedding_moments" and not i else 4)
            for i, shape in enumerate(case.shapes)
        )
        / 1e9
    )


def _conv_gigaflops(case: KernelCase) -> float:
    geometry: ConvGeometry = case.extra["geometry"]
    (batch, channels, *_), (_, filters, *positions) = case.shapes[:2]
    return 2 * batch * filters * (channels // geometry.groups) * geometry.kernel_size * prod(positions) / 1e9


def _sequence_gigaflops(case: KernelCase) -> float:
    return 2 * prod(case.shapes[0]) * case.shapes[1][2] / 1e9


WORK: dict[str, Callable[[KernelCase], float]] = {
    "conv_moments": _conv_gigaflops,
    "unpooled_conv_moments": _conv_gigaflops,
    "sequence_moments": _sequence_gigaflops,
}


def _conv(batch: int, channels: int, filters: int, size: int, geometry: ConvGeometry) -> KernelCase:
    shapes = ((batch, channels, size, size), (batch, filters, *geometry.output((size, size))))
    return KernelCase("conv_moments", shapes, {"geometry": geometry})


def _unpooled(batch: int, channels: int, filters: int, size: int, geometry: ConvGeometry) -> KernelCase:
    pool, out = PoolGeometry((2, 2), (2, 2)), geometry.output((size, size))
    pooled = tuple(low for low, _ in pool.sizes(out))
    shapes = ((batch, channels, size, size), (batch, filters, *out), (batch, filters, *pooled))
    return KernelCase("unpooled_conv_moments", shapes, {"geometry": geometry, "pool": pool})


THREE = ConvGeometry((3, 3))
THREE_SAME = ConvGeometry((3, 3), pads=SAME)
CASES: dict[str, KernelCase] = {
    "conv 1→16 3×3 28²": _conv(256, 1, 16, 28, THREE),
    "conv 16→16 3×3 13²": _conv(256, 16, 16, 13, THREE),
    "conv 16→16 3×3 5²": _conv(256, 16, 16, 5, THREE),
    "conv 64→64 3×3 16²": _conv(16, 64, 64, 16, THREE_SAME),
    "conv 512→512 3×3 4²": _conv(4, 512, 512, 4, THREE_SAME),
    "conv depthwise 128 3×3 14²": _conv(32, 128, 128, 14, ConvGeometry((3, 3), pads=SAME, groups=128)),
    "conv 1→16 3×3 28² behind 2×2 pool": _unpooled(256, 1, 16, 28, THREE),
    "conv 16→16 3×3 13² behind 2×2 pool": _unpooled(256, 16, 16, 13, THREE),
    "sequence 64 × 128→512": KernelCase("sequence_moments", ((16, 64, 128), (16, 64, 512))),
    "sequence 16 × 32→32": KernelCase("sequence_moments", ((256, 16, 32), (256, 16, 32))),
    "outer 784→512": KernelCase("outer_moments", ((256, 784), (256, 512))),
    "direct 64 MB": KernelCase("direct_moments", ((4, 4 << 20),)),
    "direct 256 × 16": KernelCase("direct_moments", ((256, 16),)),
    "position sum 64 × 16²": KernelCase("position_sum_moments", ((64, 64, 16, 16),)),
    "sequence sum 64 × 512": KernelCase("sequence_sum_moments", ((64, 64, 512),)),
    "embedding 64 of 30000 × 128": KernelCase("embedding_moments", ((32, 64), (32, 64, 128)), {"vocabulary": 30000}),
}
