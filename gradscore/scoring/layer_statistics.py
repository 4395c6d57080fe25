"""signals -> per-sample accumulators -> statistics: the layer table's backsteps and reductions, run by the kernels."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import gradscore_kernels as kernels
import numpy as np
from numpy.typing import NDArray

from gradscore.model.metadata import (
    LAYER_STATISTICS,
    SCALED_STATISTICS,
    SIGNAL_FEATURES,
    Backstep,
    ModelMetadata,
    Reduction,
)

Signals = Mapping[str, NDArray[Any]]
FloatArray = NDArray[np.float64]
_conv_geometry = lru_cache(kernels.ConvGeometry)  # a batch is little more work than its geometries are to check
_pool_geometry = lru_cache(kernels.PoolGeometry)


class LayerStatistics:
    """The eight statistics of every layer's gradient and of all together, of one micro-batch after the other.

    The signals come from the unit seed; the residual s [B] multiplies norms, extrema, mean and standard deviation here,
    in float64. Skewness and kurtosis do not depend on it.
    """

    def __init__(self, model: ModelMetadata, backend: str) -> None:
        steps = [_backstep(step) for step in model.backsteps]
        steps += [step_of(item, layer=index) for index, layer in enumerate(model.layers) for item in layer.reductions]
        self._program = kernels.Program(steps, backend=backend)

    def of(self, signals: Signals, residual: FloatArray, *, threads: int | None) -> FloatArray:
        """Return [B, 8·(layers + 1)]."""
        return self._program.run(signals, residual, threads=threads)


class GraphStatistics:
    """The same where the session itself has computed the statistics."""

    def of(self, signals: Signals, residual: FloatArray, *, threads: int | None) -> FloatArray:  # noqa: ARG002 - as above
        """Return [B, 8·(layers + 1)]."""
        statistics = signals[SIGNAL_FEATURES].astype(np.float64).reshape(len(residual), -1, len(LAYER_STATISTICS))
        columns = [LAYER_STATISTICS.index(name) for name in SCALED_STATISTICS]
        statistics[:, :, columns] *= residual[:, None, None]
        return statistics.reshape(len(residual), -1)


def passed_back(
    backsteps: Sequence[Backstep], signals: Signals, *, backend: str, threads: int | None
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Return the signals with those added that backsteps compute from them."""
    found = dict(signals)
    for step in map(_backstep, backsteps):
        found[step.name] = _called(step, found, backend=backend, threads=threads)
    return found


def reduce(reduction: Reduction, signals: Signals, *, backend: str, threads: int | None) -> FloatArray:
    """Run one reduction; returns its accumulators [B, 8]."""
    return _called(step_of(reduction), signals, backend=backend, threads=threads)


def step_of(reduction: Reduction, *, layer: int = 0) -> kernels.Step:
    """Return a reduction as a step of a program, for the layer of this number."""
    kernel, *options = REDUCTIONS[reduction.kernel](reduction)
    names = (reduction.activation, reduction.pooled, reduction.delta)
    return kernels.Step(kernel, tuple(name for name in names if name is not None), tuple(options), layer)


def _called(step: kernels.Step, signals: Signals, **how: Any) -> NDArray[Any]:
    return step.kernel(*(signals[name] for name in step.arrays), *step.options, **how)


def _backstep(step: Backstep) -> kernels.Step:
    arrays = (step.activation, step.pooled, step.delta, step.weight)
    options = (*_geometries(step.attributes), step.attributes["slope"])
    return kernels.Step(kernels.unpooled_conv_input, arrays, options, name=step.name)


def _whole_moments(gradient: NDArray[Any], **how: Any) -> FloatArray:
    """Take a gradient without a batch axis as that of a batch of one."""
    return kernels.direct_moments(gradient.reshape(1, -1), **how)


def _geometry(attributes: Mapping[str, Any]) -> kernels.ConvGeometry:
    return _conv_geometry(**_hashable(attributes))


def _geometries(attributes: Mapping[str, Any]) -> tuple[kernels.ConvGeometry, kernels.PoolGeometry]:
    """Return the geometries of a convolution and of the pool behind it."""
    return _geometry(attributes["geometry"]), _pool_geometry(**_hashable(attributes["pool"]))


def _attributes(reduction: Reduction) -> Mapping[str, Any]:
    assert reduction.attributes is not None, reduction  # noqa: S101 - the layer rules always give them to these kernels
    return reduction.attributes


def _hashable(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()}


REDUCTIONS: Mapping[str, Callable[[Reduction], tuple[Any, ...]]] = {
    "conv": lambda item: (kernels.conv_moments, _geometry(_attributes(item))),
    "direct": lambda _: (kernels.direct_moments,),
    "embedding": lambda item: (kernels.embedding_moments, _attributes(item)["vocabulary"]),
    "outer": lambda _: (kernels.outer_moments,),
    "position_sum": lambda _: (kernels.position_sum_moments,),
    "sequence": lambda _: (kernels.sequence_moments,),
    "sequence_sum": lambda _: (kernels.sequence_sum_moments,),
    "unpooled_conv": lambda item: (kernels.unpooled_conv_moments, *_geometries(_attributes(item))),
    "whole": lambda _: (_whole_moments,),
}
"""Of each kernel of the layer table the function, which takes activation, pooled and δ as far as there are, and its options."""
