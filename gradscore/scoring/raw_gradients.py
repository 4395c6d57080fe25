"""signals -> the per-sample gradients themselves, for those who want more than their statistics.

Unlike the kernels this holds batch × parameters numbers: ask for few layers, or few samples.
"""

import numpy as np
from gradscore_kernels import KERNELS
from numpy.typing import NDArray

from gradscore.model.layer_table import Layer, Reduction
from gradscore.scoring.layer_statistics import Signals

FloatArray = NDArray[np.float64]


def layer_gradients(layer: Layer, signals: Signals, residual: FloatArray) -> dict[str, FloatArray]:
    """Return {parameter: gradient [B, *shape]} of one layer, float64, the shape being the one that `inspect` lists."""
    return {
        parameter.name: (_gradient(reduction, signals).reshape(len(residual), -1) * residual[:, None]).reshape(
            len(residual), *parameter.shape
        )
        for parameter, reduction in zip(layer.parameters, layer.reductions, strict=True)
    }


def _gradient(reduction: Reduction, signals: Signals) -> FloatArray:
    """Form one parameter's gradient of the unit seed by its kernel's formula."""
    spec, attributes = KERNELS[reduction.kernel], reduction.attributes or {}
    arrays = (signals[str(getattr(reduction, slot))] for slot in spec.reads)
    return spec.arranged(spec.gradient(*arrays, *spec.options(attributes)), attributes)
