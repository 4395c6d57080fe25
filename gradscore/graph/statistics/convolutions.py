"""Gradients of convolutions in standard ONNX: the unfolded input (im2col) times δ.

δ is given at the convolution's outputs, or in pooled form, behind a max pool.
"""

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.emitter import Emitter, extents
from gradscore.graph.statistics.first_maxima import halves, is_of_pairs, kept_halves
from gradscore.graph.statistics.gradients import (
    Contraction,
    Explicit,
    Gradient,
    GradientRule,
    Halved,
    Product,
    Values,
    activation_of,
    flat,
    single,
    spatial,
)
from gradscore.graph.statistics.unfolding import Window
from gradscore.model.layer_table import Parameter, Reduction


class ConvGradientRule(GradientRule):
    """G[m, c·k] = Σ_t δ[m, t] · U[c·k, t] with the unfolded input U: a batched matrix product."""

    kernel = "conv"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        window = Window.of(reduction.attributes or {})
        unfolded = window.unfold(single(values[activation_of(reduction)], emit), emit)
        delta = values[reduction.delta]
        return _contracted(unfolded, single(delta, emit), window, parameter, emit, one_position=_is_one(delta))

    def making(self, reduction: Reduction, parameter: Parameter, values: Values) -> int:
        delta = values[reduction.delta]
        return 0 if _is_one(delta) else _unfolded_size(delta, parameter, Window.of(reduction.attributes or {}))


class UnpooledConvGradientRule(GradientRule):
    """The same for a δ in pooled form, behind a max pool.

    If the pool's windows are pairs, δ is split into one part for the first and one for the second place along the last
    axis. These parts see mostly the same inputs. For any other pool, δ is unpooled to full resolution first.
    """

    kernel = "unpooled_conv"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        attributes = reduction.attributes or {}
        window, pool = Window.of(attributes["geometry"]), Window.of(attributes["pool"])
        source = single(values[activation_of(reduction)], emit)
        seen, delta = values[str(reduction.pooled)], values[reduction.delta]
        full, pooled = spatial(seen), spatial(delta)
        if is_of_pairs(pool, full, pooled):
            known = [single(part, emit) for part in kept_halves(delta)]
            parts = known or halves(seen, single(delta, emit), (parameter.shape[0], *full), pool, emit)
            return _halved(source, parts, window, pool, full, parameter, emit)
        spread = _unpooled(single(seen, emit), single(delta, emit), pool, emit, ceil=pool.output(full) != pooled)
        return _contracted(window.unfold(source, emit), spread, window, parameter, emit)

    def making(self, reduction: Reduction, parameter: Parameter, values: Values) -> int:
        return _unfolded_size(
            values[str(reduction.pooled)], parameter, Window.of((reduction.attributes or {})["geometry"])
        )


def _is_one(delta: ir.Value) -> bool:
    """Tell whether a convolution has a single output position."""
    return set((extents(delta) or (None, None, None))[2:]) == {1}


def _unfolded_size(seen: ir.Value, parameter: Parameter, window: Window) -> int:
    """Return how many numbers per sample the unfolded input has; `seen` is [B, M, *positions]."""
    positions = prod(extent or 1 for extent in (extents(seen) or ())[2:])
    return window.groups * positions * parameter.count // parameter.shape[0]


def _contracted(
    unfolded: ir.Value, delta: ir.Value, window: Window, parameter: Parameter, emit: Emitter, *, one_position: bool = False
) -> Gradient:  # fmt: skip
    """Sum over positions, per group: U [B·C, kernel places, *positions] and δ [B, M, …] give G."""
    filters, width, groups = parameter.shape[0], parameter.shape[1] * prod(window.kernel), window.groups
    if one_position and groups == 1:
        seen = emit("Reshape", unfolded, emit.integers(-1, width))
        return Product(Explicit(seen, width), Explicit(flat(delta, emit), filters))
    batch = emit("Shape", delta, start=0, end=1)
    lines = (groups, filters // groups) if groups > 1 else (filters,)
    columns = emit("Concat", batch, emit.integers(*lines[:-1], width, -1), axis=0)
    rows = emit("Concat", batch, emit.integers(*lines, -1), axis=0)
    return Contraction(emit("Reshape", delta, rows), emit("Reshape", unfolded, columns), lines, width)


def _halved(
    source: ir.Value, parts: Sequence[ir.Value], window: Window, pool: Window, full: Sequence[int], parameter: Parameter,
    emit: Emitter,
) -> Gradient:  # fmt: skip
    """Sum over positions, with a part of δ [B, M, *positions] per place along the last axis."""
    filters, channels, groups = parameter.shape[0], parameter.shape[1], window.groups
    *outer, last = (size // extent for size, extent in zip(full, pool.kernel, strict=True))
    positions = prod(outer) * prod(pool.kernel[:-1]) * last
    lines = (groups, filters // groups) if groups > 1 else (filters,)
    cells = (*[1] * len(outer), pool.kernel[-1])
    left = (*(size % extent for size, extent in zip(full[:-1], pool.kernel, strict=False)), 0)
    planes, seen = window.planes(source, cells, left, emit)
    columns = window.unfold(source, emit, cells, left)
    flat_parts = tuple(emit("Reshape", part, emit.integers(-1, *lines, positions)) for part in parts)
    around = [-1, *lines[:-1]]
    return Halved(
        rows=emit("Concat", *flat_parts, axis=len(lines) + 1) if len(parts) > 1 else flat_parts[0],
        columns=emit("Reshape", columns, emit.integers(*around, channels * prod(window.kernel), len(parts) * positions)),
        lines=lines, width=channels * prod(window.kernel), parts=flat_parts,
        planes=emit("Reshape", planes, emit.integers(*around, channels * (1 + max(map(max, seen))), positions)),
        seen=tuple(map(tuple, seen)), channels=groups * channels,
    )  # fmt: skip


def _unpooled(seen: ir.Value, delta: ir.Value, pool: Window, emit: Emitter, *, ceil: bool) -> ir.Value:
    """Scatter δ to the first maximum of each window, at full resolution."""
    geometry = {
        "kernel_shape": list(pool.kernel), "strides": list(pool.strides), "dilations": list(pool.dilations),
        "pads": list(pool.pads), "ceil_mode": int(ceil),
    }  # fmt: skip
    indices = emit.emit("MaxPool", [seen], 2, geometry)[1]
    shape, flat = emit("Shape", seen), emit.integers(-1)
    size = emit("ReduceProd", shape, emit.integers(0), keepdims=1)
    zeros = emit("Expand", emit.constant(0, np.float32), size)
    at, what = emit("Reshape", indices, flat), emit("Reshape", delta, flat)
    return emit("Reshape", emit("ScatterElements", zeros, at, what, axis=0, reduction="add"), shape)
