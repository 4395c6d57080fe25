"""signals -> per-sample accumulators -> statistics: the layer table's backsteps and reductions, run by the kernels."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import gradscore_kernels as kernels
import numpy as np
from numpy.typing import NDArray

from gradscore.metadata import LAYER_STATISTICS, SCALED_STATISTICS, SIGNAL_FEATURES, Backstep, Layer, Reduction

Signals = Mapping[str, NDArray[Any]]
FloatArray = NDArray[np.float64]
_conv_geometry = lru_cache(kernels.ConvGeometry)  # a batch is little more work than its geometries are to check
_pool_geometry = lru_cache(kernels.PoolGeometry)


def passed_back(
    backsteps: Sequence[Backstep], signals: Signals, *, backend: str, threads: int | None
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Return the signals with those added that backsteps compute from them; where the session did all, there are none."""
    found = dict(signals)
    for step in backsteps if SIGNAL_FEATURES not in signals else ():
        geometry, pool = _geometries(step.attributes)
        found[step.name] = kernels.unpooled_conv_input(
            found[step.activation], found[step.pooled], found[step.delta], found[step.weight], geometry, pool,
            step.attributes["slope"], backend=backend, threads=threads,
        )  # fmt: skip
    return found


def layer_features(
    layers: tuple[Layer, ...], signals: Signals, residual: FloatArray, *, backend: str, threads: int | None
) -> FloatArray:
    """Return the eight statistics of every layer's gradient and of all together, [B, 8·(layers + 1)].

    The signals come from the unit seed; the residual s [B] multiplies norms, extrema, mean and standard deviation here,
    in float64. Skewness and kurtosis do not depend on it. Where the session itself computed them, that is all to be done.
    """
    if SIGNAL_FEATURES in signals:
        return _scaled(signals[SIGNAL_FEATURES], residual)
    pairs = [(index, reduction) for index, layer in enumerate(layers) for reduction in layer.reductions]
    accumulators = [reduce(reduction, signals, backend=backend, threads=threads) for _, reduction in pairs]
    return kernels.layer_statistics(accumulators, [index for index, _ in pairs], residual, backend=backend)


def _scaled(features: NDArray[np.float32], residual: FloatArray) -> FloatArray:
    statistics = features.astype(np.float64).reshape(len(residual), -1, len(LAYER_STATISTICS))
    columns = [LAYER_STATISTICS.index(name) for name in SCALED_STATISTICS]
    statistics[:, :, columns] *= residual[:, None, None]
    return statistics.reshape(len(residual), -1)


def reduce(reduction: Reduction, signals: Signals, *, backend: str, threads: int | None) -> FloatArray:
    """Run one reduction; returns its accumulators [B, 8]."""
    return REDUCTIONS[reduction.kernel](reduction, signals, backend=backend, threads=threads)


def _outer(reduction: Reduction, signals: Signals, **options: Any) -> FloatArray:
    return kernels.outer_moments(_activation(reduction, signals), signals[reduction.delta], **options)


def _sequence(reduction: Reduction, signals: Signals, **options: Any) -> FloatArray:
    return kernels.sequence_moments(_activation(reduction, signals), signals[reduction.delta], **options)


def _conv(reduction: Reduction, signals: Signals, **options: Any) -> FloatArray:
    geometry = _conv_geometry(**_hashable(reduction.attributes or {}))
    return kernels.conv_moments(_activation(reduction, signals), signals[reduction.delta], geometry, **options)


def _embedding(reduction: Reduction, signals: Signals, **options: Any) -> FloatArray:
    vocabulary = (reduction.attributes or {})["vocabulary"]
    return kernels.embedding_moments(_activation(reduction, signals), signals[reduction.delta], vocabulary, **options)


def _unpooled_conv(reduction: Reduction, signals: Signals, **options: Any) -> FloatArray:
    geometry, pool = _geometries(reduction.attributes or {})
    pooled, delta = signals[str(reduction.pooled)], signals[reduction.delta]
    return kernels.unpooled_conv_moments(_activation(reduction, signals), pooled, delta, geometry, pool, **options)


def _geometries(attributes: Mapping[str, Any]) -> tuple[kernels.ConvGeometry, kernels.PoolGeometry]:
    """Return the geometries of a convolution and of the pool behind it."""
    return _conv_geometry(**_hashable(attributes["geometry"])), _pool_geometry(**_hashable(attributes["pool"]))


def _position_sum(reduction: Reduction, signals: Signals, **options: Any) -> FloatArray:
    return kernels.position_sum_moments(signals[reduction.delta], **options)


def _sequence_sum(reduction: Reduction, signals: Signals, **options: Any) -> FloatArray:
    return kernels.sequence_sum_moments(signals[reduction.delta], **options)


def _direct(reduction: Reduction, signals: Signals, **options: Any) -> FloatArray:
    return kernels.direct_moments(signals[reduction.delta], **options)


def _activation(reduction: Reduction, signals: Signals) -> NDArray[Any]:
    assert reduction.activation is not None, reduction  # noqa: S101 - the layer rules always name it for these kernels
    return signals[reduction.activation]


def _hashable(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()}


def _whole(reduction: Reduction, signals: Signals, **options: Any) -> FloatArray:
    return kernels.direct_moments(signals[reduction.delta].reshape(1, -1), **options)


REDUCTIONS: Mapping[str, Callable[..., FloatArray]] = {
    "conv": _conv,
    "direct": _direct,
    "embedding": _embedding,
    "outer": _outer,
    "position_sum": _position_sum,
    "sequence": _sequence,
    "sequence_sum": _sequence_sum,
    "unpooled_conv": _unpooled_conv,
    "whole": _whole,
}
