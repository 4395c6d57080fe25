"""signals -> accumulators -> statistics: the kernels run the backsteps and reductions of the layer table."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradscore_kernels as kernels
import numpy as np
from numpy.typing import NDArray

from gradscore.model.layer_table import Backstep, Reduction
from gradscore.model.metadata import LAYER_STATISTICS, SCALED_STATISTICS, SIGNAL_FEATURES, ModelMetadata

Signals = Mapping[str, NDArray[Any]]
FloatArray = NDArray[np.float64]


class LayerStatistics:
    """The eight statistics of every layer's gradient, and of all layers together, from signals.

    The signals come from the unit seed. The residual s [B] multiplies norms, extremes, mean and standard deviation here,
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
    """The same statistics, where the session has computed them for the unit seed."""

    def of(self, signals: Signals, residual: FloatArray, *, threads: int | None) -> FloatArray:  # noqa: ARG002 - the protocol has it
        """Return [B, 8·(layers + 1)]."""
        statistics = signals[SIGNAL_FEATURES].astype(np.float64).reshape(len(residual), -1, len(LAYER_STATISTICS))
        columns = [LAYER_STATISTICS.index(name) for name in SCALED_STATISTICS]
        statistics[:, :, columns] *= residual[:, None, None]
        return statistics.reshape(len(residual), -1)


def passed_back(
    backsteps: Sequence[Backstep], signals: Signals, *, backend: str, threads: int | None
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Return the signals, and those that backsteps compute from them."""
    found = dict(signals)
    for step in map(_backstep, backsteps):
        found[step.name] = _called(step, found, backend=backend, threads=threads)
    return found


def reduce(reduction: Reduction, signals: Signals, *, backend: str, threads: int | None) -> FloatArray:
    """Run one reduction, and return its accumulators [B, 8]."""
    return _called(step_of(reduction), signals, backend=backend, threads=threads)


def step_of(reduction: Reduction, *, layer: int = 0) -> kernels.Step:
    """Return a reduction as a step of a program, for layer number `layer`."""
    spec = kernels.KERNELS[reduction.kernel]
    arrays = tuple(str(getattr(reduction, slot)) for slot in spec.reads)
    return kernels.Step(spec.call, arrays, spec.options(reduction.attributes or {}), layer)


def _called(step: kernels.Step, signals: Signals, **how: Any) -> NDArray[Any]:
    return step.kernel(*(signals[name] for name in step.arrays), *step.options, **how)


def _backstep(step: Backstep) -> kernels.Step:
    spec = kernels.BACKSTEP
    arrays = tuple(str(getattr(step, slot)) for slot in spec.reads)
    return kernels.Step(spec.call, arrays, spec.options(step.attributes), name=step.name)
