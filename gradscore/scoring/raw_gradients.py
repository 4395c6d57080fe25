"""signals -> the per-sample gradients themselves, for users who need more than their statistics.

Unlike kernels, this takes memory for batch × parameters numbers: ask for few layers, or for few samples.
"""

import numpy as np
from gradscore_kernels import KERNELS
from numpy.typing import NDArray

from gradscore.model.layer_table import Layer, Reduction
from gradscore.scoring.layer_statistics import Signals

FloatArray = NDArray[np.float64]


def layer_gradients(layer: Layer, signals: Signals, residual: FloatArray) -> dict[str, FloatArray]:
    """Return {parameter: gradient} of one layer, float64 [B, *shape]; `inspect` lists the shapes."""
    return {
        parameter.name: (_gradient(reduction, signals).reshape(len(residual), -1) * residual[:, None]).reshape(
            len(residual), *parameter.shape
        )
        for parameter, reduction in zip(layer.parameters, layer.reductions, strict=True)
    }


def _gradient(reduction: Reduction, signals: Signals) -> FloatArray:
    """Compute one parameter's gradient for the unit seed, by the formula of its kernel."""
    spec, attributes = KERNELS[reduction.kernel], reduction.attributes or {}
    arrays = (signals[str(getattr(reduction, slot))] for slot in spec.reads)
    return spec.arranged(spec.gradient(*arrays, *spec.options(attributes)), attributes)
