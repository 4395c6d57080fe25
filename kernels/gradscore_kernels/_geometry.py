"""Where a convolution's kernel lies on its input."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from gradscore_kernels._errors import KernelError


@dataclass(frozen=True)
class ConvGeometry:
    """A convolution's attributes, named and ordered as ONNX `Conv` does.

    Parameters
    ----------
    kernel
        Kernel size by axis; its length (1, 2 or 3) is the convolution's dimension.
    strides, dilations
        By axis; left out, all 1.
    pads
        `(begin…, end…)`, twice as long as `kernel`; left out, all 0. A negative pad crops.
    groups
        Number of groups.

    Notes
    -----
    `ConvTranspose` has the same weight gradient with the roles swapped: with the layer's input x `[B, C, *in]`, its
    output's δ `[B, M, *out]`, and its own attributes as the geometry, call
    `conv_moments(a=δ, delta=x, geometry=...)`. An `output_padding` of at least the stride leaves rows at δ's end that
    no position reaches: lower the end pad by `output_padding` (a negative pad crops).
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    groups: int = 1

    def __post_init__(self) -> None:
        """Fill in the defaults and refuse what no convolution has."""
        rank = len(self.kernel)
        if rank not in {1, 2, 3}:
            raise KernelError(f"kernel {self.kernel} has {rank} axes: convolutions of 1, 2 or 3 dimensions are covered")
        for name, length, default in (
            ("kernel", rank, 1),
            ("strides", rank, 1),
            ("dilations", rank, 1),
            ("pads", 2 * rank, 0),
        ):
            value = tuple(int(v) for v in getattr(self, name)) or (default,) * length
            object.__setattr__(self, name, value)
            if len(value) != length:
                raise KernelError(f"{name} {value} has {len(value)} numbers: a kernel {self.kernel} needs {length}")
            if name != "pads" and min(value) < 1:
                raise KernelError(f"{name} {value} must be 1 or more on every axis")
        if self.groups < 1:
            raise KernelError(f"groups is {self.groups}: it must be 1 or more")

    @property
    def kernel_size(self) -> int:
        """Number of weights of one input channel for one output channel."""
        return prod(self.kernel)

    def padded(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Input size by axis once padded."""
        rank = len(self.kernel)
        return tuple(size + self.pads[i] + self.pads[rank + i] for i, size in enumerate(spatial))

    def output(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Output size by axis for an input of size `spatial`; 0 or less where the kernel does not fit."""
        steps = zip(self.padded(spatial), self.kernel, self.strides, self.dilations, strict=True)
        return tuple((size - d * (k - 1) - 1) // s + 1 for size, k, s, d in steps)
