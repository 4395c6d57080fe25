"""Piecewise linear functions, one per column, in NumPy and as ONNX nodes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from gradscore.verdict.learning.verdict_nodes import VerdictNodes

FloatArray = npt.NDArray[np.float64]

# With one segment, the ONNX comparison would have an empty operand, which runtimes treat differently.
LEAST_SEGMENTS = 2


@dataclass(frozen=True)
class Interpolation:
    """Piecewise linear functions, one per column, constant beyond the outer knots.

    y = value + slope·(x − start) on the segment that contains x, with x clipped to the knots.
    Columns with fewer segments are padded with segments that start at infinity, which no x reaches.

    Attributes
    ----------
    starts, values, slopes : float64 [K, L]
        Segments of each column in ascending order.
    upper : float64 [K]
        Last knot of each column.
    """

    starts: FloatArray
    values: FloatArray
    slopes: FloatArray
    upper: FloatArray

    @classmethod
    def through(cls, knots: Sequence[tuple[FloatArray, FloatArray]]) -> "Interpolation":
        """Build the functions from the knots (x strictly ascending, y) of each column.

        One knot gives a constant.
        """
        segments = max([LEAST_SEGMENTS, *(len(x) - 1 for x, _ in knots)])
        starts = np.full((len(knots), segments), np.inf)
        values, slopes = np.zeros((2, len(knots), segments))
        for column, (x, y) in enumerate(knots):
            count = max(1, len(x) - 1)
            starts[column, :count], values[column, :count] = x[:count], y[:count]
            slopes[column, : len(x) - 1] = np.diff(y) / np.diff(x)
        return cls(starts, values, slopes, np.array([x[-1] for x, _ in knots]))

    def __call__(self, x: FloatArray) -> FloatArray:
        """Return the values of the functions at x [N, K]."""
        out = np.empty(x.shape)
        for column in range(x.shape[1]):
            starts = self.starts[column]
            inside = np.clip(x[:, column], starts[0], self.upper[column])
            at = np.searchsorted(starts[1:], inside, side="right")
            out[:, column] = self.values[column, at] + self.slopes[column, at] * (inside - starts[at])
        return out

    def only(self, kept: npt.NDArray[np.int64]) -> "Interpolation":
        """Return some of the K functions."""
        return Interpolation(self.starts[kept], self.values[kept], self.slopes[kept], self.upper[kept])

    def emit(self, emit: VerdictNodes, x: str) -> str:
        """Write the same arithmetic as ONNX nodes.

        The index of a segment is the number of later starts ≤ x.
        """
        columns, segments = self.starts.shape
        inside = emit("Min", emit("Max", x, self.starts[:, 0]), self.upper)
        deep = emit("Reshape", inside, np.array([-1, columns, 1], dtype=np.int64))
        reached = emit("Cast", emit("LessOrEqual", self.starts[:, 1:], deep), to=TensorProto.INT64)
        count = emit("ReduceSum", reached, np.array([2], dtype=np.int64), keepdims=0)
        at = emit("Add", count, segments * np.arange(columns, dtype=np.int64))
        start, value, slope = (emit("Gather", part.reshape(-1), at) for part in self._finite_tables())
        return emit("Add", value, emit("Mul", slope, emit("Sub", inside, start)))

    def _finite_tables(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        return np.where(np.isinf(self.starts), 0.0, self.starts), self.values, self.slopes
