"""Windows of convolutions and pools, and inputs unfolded by them, in standard ONNX."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.emitter import Emitter, extents

_FEW = 32  # inputs of which the product with a matrix of ones and zeros takes less time than a convolution


@dataclass(frozen=True)
class Window:
    """Where a convolution's kernel, or a pool's window, lies on its input."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, attributes: Mapping[str, Sequence[int] | int]) -> "Window":
        """Read a reduction's attributes."""
        kernel, strides, dilations, pads = (
            tuple(int(number) for number in attributes[name])  # type: ignore[union-attr]  # lists but for groups
            for name in ("kernel", "strides", "dilations", "pads")
        )
        return cls(kernel, strides, dilations, pads, int(attributes.get("groups", 1)))  # type: ignore[arg-type]

    def output(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Number of positions by axis."""
        rank = len(self.kernel)
        padded = [size + self.pads[axis] + self.pads[rank + axis] for axis, size in enumerate(spatial)]
        return tuple(
            (size - step * (extent - 1) - 1) // stride + 1
            for size, extent, stride, step in zip(padded, self.kernel, self.strides, self.dilations, strict=True)
        )

    def unfold(self, value: ir.Value, emit: Emitter, cells: Sequence[int] = (), left: Sequence[int] = ()) -> ir.Value:
        """Lay out what each kernel place sees: [B, C, *in] to [B·C, kernel places (· cells), *positions].

        A convolution of every channel by kernels that hold a single 1; of a few inputs, a product with a matrix of them.
        With `cells`, how many neighbours along each axis share a position, each neighbour has a kernel of its own; `left`
        positions at the end of each axis are nobody's.
        """
        sizes = [extent for extent in (extents(value) or ())[2:] if extent is not None]
        if not cells and len(sizes) == len(self.kernel) and prod(sizes) <= _FEW:
            inputs, picked = emit("Reshape", value, emit.integers(-1, prod(sizes))), self._picked(sizes)
            unfolded = emit("MatMul", inputs, emit.constant(picked, np.float32))
            return emit("Reshape", unfolded, emit.integers(0, prod(self.kernel), *self.output(sizes)))
        cells = tuple(cells) or (1,) * len(self.kernel)
        order = product(product(*map(range, self.kernel)), product(*map(range, cells)))
        offsets = [self._offset(place, cell) for place, cell in order]
        return self._seen(value, offsets, cells, left, emit)

    def planes(
        self, value: ir.Value, cells: Sequence[int], left: Sequence[int], emit: Emitter
    ) -> tuple[ir.Value, list[list[int]]]:
        """The same with each plane kept once that places of several neighbours see: [B·C, planes, *positions].

        Returns beside it for each neighbour, row-major, which planes its kernel's places see, those along the last axis
        outermost: neighbours there see planes that follow one another.
        """
        places = [place[::-1] for place in product(*map(range, reversed(self.kernel)))]
        seen = [[self._offset(place, cell) for place in places] for cell in product(*map(range, cells))]
        offsets = sorted({offset for own in seen for offset in own}, key=lambda offset: offset[::-1])
        planes = [[offsets.index(offset) for offset in own] for own in seen]
        return self._seen(value, offsets, cells, left, emit), planes

    def _offset(self, place: Sequence[int], cell: Sequence[int]) -> tuple[int, ...]:
        """How far from its position's first input a kernel's place at a neighbour lies."""
        axes = zip(place, self.dilations, cell, self.strides, strict=True)
        return tuple(at * dilation + neighbour * stride for at, dilation, neighbour, stride in axes)

    def _seen(
        self,
        value: ir.Value,
        offsets: Sequence[tuple[int, ...]],
        cells: Sequence[int],
        left: Sequence[int],
        emit: Emitter,
    ) -> ir.Value:
        """Pick the input at each offset from every position: [B·C, offsets, *positions]."""
        value, pads = self._padded(value, emit)
        unseen = [count * stride for count, stride in zip(left or (0,) * len(cells), self.strides, strict=True)]
        reach = [max(along) + 1 + beyond for along, beyond in zip(zip(*offsets, strict=True), unseen, strict=True)]
        kernels = np.zeros((len(offsets), 1, *reach), dtype=np.float32)
        for index, offset in enumerate(offsets):
            kernels[(index, 0, *offset)] = 1
        strides = [stride * size for stride, size in zip(self.strides, cells, strict=True)]
        channels = emit("Reshape", value, emit.integers(-1, 1, *[0] * len(self.kernel)))
        if kernels.size == prod(strides) == 1 and not any(pads):
            return channels
        return emit(
            "Conv", channels, emit.constant(kernels, np.float32), strides=strides, kernel_shape=reach, pads=pads
        )

    def _picked(self, spatial: Sequence[int]) -> np.ndarray:
        """Return the matrix [inputs, places · positions] with a 1 where a kernel's place at a position sees an input."""
        whole = np.ones((1, 1, 1))
        axes = zip(spatial, self.output(spatial), self.kernel, self.strides, self.dilations, self.pads, strict=False)
        for size, count, extent, stride, step, pad in axes:
            seen = np.arange(extent)[:, None] * step + np.arange(count) * stride - pad
            along = np.arange(size)[:, None, None] == seen
            joined = whole[:, None, :, None, :, None] * along[None, :, None, :, None, :]
            whole = joined.reshape([outer * inner for outer, inner in zip(whole.shape, along.shape, strict=True)])
        return whole.reshape(len(whole), -1)

    def _padded(self, value: ir.Value, emit: Emitter) -> tuple[ir.Value, list[int]]:
        """Leave pads to the convolution, unless one crops."""
        if min(self.pads) >= 0:
            return value, list(self.pads)
        rank = len(self.kernel)
        around = emit.integers(0, 0, *self.pads[:rank], 0, 0, *self.pads[rank:])
        return emit("Pad", value, around), [0] * (2 * rank)
