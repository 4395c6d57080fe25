"""signals -> the per-sample gradients themselves, for those who want more than their statistics.

Unlike the kernels this holds batch × parameters numbers: ask for few layers, or few samples.
"""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore.metadata import Layer, Reduction

FloatArray = NDArray[np.float64]
Signals = Mapping[str, NDArray[Any]]


def layer_gradients(layer: Layer, signals: Signals, residual: FloatArray) -> dict[str, FloatArray]:
    """Return {parameter: gradient [B, *shape]} of one layer, float64, the shape being the one that `inspect` lists."""
    return {
        parameter.name: (
            GRADIENTS[reduction.kernel](reduction, signals).reshape(len(residual), -1) * residual[:, None]
        ).reshape(len(residual), *parameter.shape)
        for parameter, reduction in zip(layer.parameters, layer.reductions, strict=True)
    }  # fmt: skip


def _delta(reduction: Reduction, signals: Signals) -> FloatArray:
    return np.asarray(signals[reduction.delta], dtype=np.float64)


def _activation(reduction: Reduction, signals: Signals) -> FloatArray:
    return np.asarray(signals[str(reduction.activation)], dtype=np.float64)


def _outer(reduction: Reduction, signals: Signals) -> FloatArray:
    return np.einsum(f"bn,bm->{_order(reduction)}", _activation(reduction, signals), _delta(reduction, signals))


def _sequence(reduction: Reduction, signals: Signals) -> FloatArray:
    return np.einsum(f"btn,btm->{_order(reduction)}", _activation(reduction, signals), _delta(reduction, signals))


def _order(reduction: Reduction) -> str:
    return "bmn" if (reduction.attributes or {}).get("outputs_first") else "bnm"


def _conv(reduction: Reduction, signals: Signals) -> FloatArray:
    geometry = reduction.attributes or {}
    data, delta = _activation(reduction, signals), _delta(reduction, signals)
    batch, groups, kernel = len(data), int(geometry["groups"]), tuple(geometry["kernel"])
    rank, out = len(kernel), delta.shape[2:]
    pads = geometry["pads"]
    padded = np.pad(data, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    split = delta.reshape(batch, groups, delta.shape[1] // groups, -1)
    gradient = np.empty((batch, groups, split.shape[2], data.shape[1] // groups, *kernel))
    for place in product(*map(range, kernel)):
        window = tuple(
            slice(at * dilation, at * dilation + stride * (size - 1) + 1, stride)
            for at, dilation, stride, size in zip(place, geometry["dilations"], geometry["strides"], out, strict=True)
        )
        seen = padded[(slice(None), slice(None), *window)].reshape(batch, groups, -1, split.shape[3])
        gradient[(..., *place)] = np.einsum("bgmt,bgct->bgmc", split, seen)
    return gradient


def _embedding(reduction: Reduction, signals: Signals) -> FloatArray:
    ids, delta = signals[str(reduction.activation)], _delta(reduction, signals)
    gradient = np.zeros((len(ids), int((reduction.attributes or {})["vocabulary"]), delta.shape[2]))
    np.add.at(gradient, (np.arange(len(ids))[:, None], ids), delta)
    return gradient


def _position_sum(reduction: Reduction, signals: Signals) -> FloatArray:
    delta = _delta(reduction, signals)
    return np.asarray(delta.reshape(*delta.shape[:2], -1).sum(axis=2))


def _sequence_sum(reduction: Reduction, signals: Signals) -> FloatArray:
    return np.asarray(_delta(reduction, signals).sum(axis=1))


GRADIENTS: Mapping[str, Callable[[Reduction, Signals], FloatArray]] = {
    "conv": _conv,
    "direct": _delta,
    "embedding": _embedding,
    "outer": _outer,
    "position_sum": _position_sum,
    "sequence": _sequence,
    "sequence_sum": _sequence_sum,
    "whole": _delta,
}
