"""signals -> the per-sample gradients themselves, for those who want more than their statistics.

Unlike the kernels this holds batch × parameters numbers: ask for few layers, or few samples.
"""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore.model.metadata import Layer, Reduction

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
    return np.asarray(
        np.einsum(f"bn,bm->{_order(reduction)}", _activation(reduction, signals), _delta(reduction, signals))
    )


def _sequence(reduction: Reduction, signals: Signals) -> FloatArray:
    return np.asarray(
        np.einsum(f"btn,btm->{_order(reduction)}", _activation(reduction, signals), _delta(reduction, signals))
    )


def _order(reduction: Reduction) -> str:
    return "bmn" if (reduction.attributes or {}).get("outputs_first") else "bnm"


def _conv(reduction: Reduction, signals: Signals) -> FloatArray:
    return _conv_gradient(_activation(reduction, signals), _delta(reduction, signals), reduction.attributes or {})


def _unpooled_conv(reduction: Reduction, signals: Signals) -> FloatArray:
    attributes = reduction.attributes or {}
    chosen_from = np.asarray(signals[str(reduction.pooled)], dtype=np.float64)
    delta = _unpooled(chosen_from, _delta(reduction, signals), attributes["pool"])
    return _conv_gradient(_activation(reduction, signals), delta, attributes["geometry"])


def _unpooled(chosen_from: FloatArray, delta: FloatArray, pool: Mapping[str, Any]) -> FloatArray:
    """Add each pooled gradient at its window's first maximum."""
    rank = len(pool["kernel"])
    full = np.zeros_like(chosen_from)
    for place in product(*map(range, delta.shape[2:])):
        axes = []
        for axis, at in enumerate(place):
            start = at * pool["strides"][axis] - pool["pads"][axis]
            reach = np.arange(pool["kernel"][axis]) * pool["dilations"][axis] + start
            axes.append(reach[(reach >= 0) & (reach < chosen_from.shape[2 + axis])])
        window = chosen_from[:, :, *np.ix_(*axes)]
        first = window.reshape(*window.shape[:2], -1).argmax(axis=2)
        offsets = np.unravel_index(first, window.shape[2:])
        spots = tuple(axes[axis][offsets[axis]] for axis in range(rank))
        maxima: Any = (*np.indices(first.shape), *spots)
        behind: Any = (slice(None), slice(None), *place)
        full[maxima] += delta[behind]
    return full


def _conv_gradient(data: FloatArray, delta: FloatArray, geometry: Mapping[str, Any]) -> FloatArray:
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
        spot: Any = (..., *place)
        gradient[spot] = np.einsum("bgmt,bgct->bgmc", split, seen)
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
    "unpooled_conv": _unpooled_conv,
    "whole": _delta,
}
