"""Where the kernel of a convolution, or the window of a max pool, lies on its input."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._errors import KernelError


@dataclass(frozen=True)
class ConvGeometry:
    """The attributes of a convolution, with the names and order of ONNX `Conv`.

    Parameters
    ----------
    kernel
        Kernel size by axis. Its length (1, 2 or 3) is the number of dimensions.
    strides, dilations
        One number per axis. Default: all 1.
    pads
        `(begin…, end…)`, twice as long as `kernel`. Default: all 0. A negative pad crops.
    groups
        Number of groups.

    Raises
    ------
    KernelError
        The numbers do not fit the number of dimensions, or are too small.

    Notes
    -----
    `ConvTranspose` has the same weight gradient with swapped roles. Take the layer's input x `[B, C, *in]`, its output
    gradient δ `[B, M, *out]` and its own attributes as the geometry, and call
    `conv_moments(a=δ, delta=x, geometry=...)`. If `output_padding` is at least the stride, no position reaches the last
    rows of δ. Then lower the end pad by `output_padding` (a negative pad crops).
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    groups: int = 1

    def __post_init__(self) -> None:
        """Fill in the defaults and refuse numbers that no convolution has."""
        _complete(self, "convolutions")
        if self.groups < 1:
            raise KernelError(f"groups is {self.groups}: it must be 1 or more")

    @property
    def kernel_size(self) -> int:
        """Number of weights of one input channel for one output channel."""
        return prod(self.kernel)

    def padded(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Return the size of the padded input by axis."""
        rank = len(self.kernel)
        return tuple(size + self.pads[i] + self.pads[rank + i] for i, size in enumerate(spatial))

    def output(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Return the output size by axis for an input of size `spatial`; 0 or less if the kernel does not fit."""
        steps = zip(self.padded(spatial), self.kernel, self.strides, self.dilations, strict=True)
        return tuple((size - d * (k - 1) - 1) // s + 1 for size, k, s, d in steps)


@dataclass(frozen=True)
class PoolGeometry:
    """The attributes of a max pool, with the names and order of ONNX `MaxPool`.

    Parameters
    ----------
    kernel
        Window size by axis. Its length (1, 2 or 3) is the number of dimensions.
    strides, dilations
        One number per axis. Default: all 1.
    pads
        `(begin…, end…)`, twice as long as `kernel`, none negative. Default: all 0. Padding is never the maximum.

    Raises
    ------
    KernelError
        The numbers do not fit the number of dimensions, or are too small.

    Notes
    -----
    There is no `ceil_mode`: the size of the pooled array tells whether the last window reaches beyond the end.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Fill in the defaults and refuse numbers that no max pool has."""
        _complete(self, "poolings")
        if min(self.pads) < 0:
            raise KernelError(f"pads {self.pads} must be 0 or more: a pooling crops nothing")

    def sizes(self, spatial: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Return the smallest (floor mode) and largest (ceil mode) output size by axis for an input of size `spatial`."""
        rank = len(self.kernel)
        free = [
            size + self.pads[i] + self.pads[rank + i] - self.dilations[i] * (self.kernel[i] - 1) - 1
            for i, size in enumerate(spatial)
        ]
        return tuple((room // s + 1, -(-room // s) + 1) for room, s in zip(free, self.strides, strict=True))

    def windows(self, spatial: Sequence[int], pooled: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the numbers `[W]` of the windows that hold a cell, and their cells `[W, kernel_size]`.

        Cells are numbered in row-major order within a plane of size `spatial`. In the place of padding stands the
        window's first cell once more, which changes no first maximum.
        """
        return _windows(self, tuple(spatial), tuple(pooled))


def _complete(geometry: "ConvGeometry | PoolGeometry", covered: str) -> None:
    """Fill in the defaults; refuse numbers that do not fit the number of dimensions."""
    rank = len(geometry.kernel)
    if rank not in {1, 2, 3}:
        raise KernelError(f"kernel {geometry.kernel} has {rank} axes: {covered} of 1, 2 or 3 dimensions are covered")
    for name, length, default in (
        ("kernel", rank, 1),
        ("strides", rank, 1),
        ("dilations", rank, 1),
        ("pads", 2 * rank, 0),
    ):
        value = tuple(int(v) for v in getattr(geometry, name)) or (default,) * length
        object.__setattr__(geometry, name, value)
        if len(value) != length:
            raise KernelError(f"{name} {value} has {len(value)} numbers: a kernel {geometry.kernel} needs {length}")
        if name != "pads" and min(value) < 1:
            raise KernelError(f"{name} {value} must be 1 or more on every axis")


@lru_cache(maxsize=64)
def _windows(
    pool: PoolGeometry, spatial: tuple[int, ...], pooled: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Build the table of windows × cells axis by axis, then replace padding."""
    place, inside = np.zeros((1, 1), dtype=np.int64), np.ones((1, 1), dtype=bool)
    for axis, (size, count) in enumerate(zip(spatial, pooled, strict=True)):
        steps = np.arange(count)[:, None] * pool.strides[axis] + np.arange(pool.kernel[axis]) * pool.dilations[axis]
        at = steps - pool.pads[axis]
        shape = (len(place) * count, place.shape[1] * pool.kernel[axis])
        place = (place[:, None, :, None] * size + at[None, :, None, :]).reshape(shape)
        inside = (inside[:, None, :, None] & ((at >= 0) & (at < size))[None, :, None, :]).reshape(shape)
    first = np.take_along_axis(place, inside.argmax(1)[:, None], 1)
    met = np.flatnonzero(inside.any(1))
    return met, np.where(inside, place, first)[met]
