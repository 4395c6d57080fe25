"""The eight statistics of values whose sizes are known only when the model runs, such as those of texts of any length."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.arithmetic import Number
from gradscore.graph.nodes.emitter import Emitter
from gradscore.graph.statistics.features import statistics_of
from gradscore.graph.statistics.gradients import flat
from gradscore.graph.statistics.moments import SMALLEST_SCALE, Moments
from gradscore.model.metadata import LAYER_STATISTICS


def append_open_statistics(values: Sequence[ir.Value], emit: Emitter) -> ir.Value:
    """Return the statistics of all numbers of some values, double [B, 8]; in double precision throughout."""
    pieces = [flat(value, emit) for value in values]
    joined = emit("Concat", *pieces, axis=1) if len(pieces) > 1 else pieces[0]
    x = Number(emit("Cast", joined, to=ir.DataType.DOUBLE), emit, np.float64)
    count = Number(emit("Cast", emit("Shape", joined, start=1, end=2), to=ir.DataType.DOUBLE), emit, np.float64)
    mean = x.total(1, keepdims=1) / count
    low, high = x.smallest(1, keepdims=1) + mean * 0, x.largest(1, keepdims=1) + mean * 0
    scale = high.op("Max", -low, SMALLEST_SCALE)
    centred = (x - mean) / scale
    square = centred * centred
    moments = Moments(
        l1=lambda: x.op("Abs").total(1, keepdims=1),
        low=lambda: low,
        high=lambda: high,
        mean=lambda: mean,
        scale=lambda: scale,
        m2=lambda: square.total(1, keepdims=1) / count,
        m3=lambda: (square * centred).total(1, keepdims=1) / count,
        m4=lambda: (square * square).total(1, keepdims=1) / count,
    )
    found = statistics_of(moments, count.op("Sqrt"))
    first, *others = (found[statistic]() for statistic in LAYER_STATISTICS)
    return first.op("Concat", *others, axis=1).value
