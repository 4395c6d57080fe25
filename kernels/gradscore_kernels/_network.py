"""Functions for a whole network: statistics of its layers, and features of its logits."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._accumulators import checked_accumulators
from gradscore_kernels._errors import KernelError
from gradscore_kernels.backends.registry import load

Accumulators = NDArray[np.float64]
Array = NDArray[Any]


def layer_statistics(
    accumulators: Sequence[Accumulators], layers: Sequence[int], scale: Array, *, backend: str = "auto"
) -> Accumulators:
    """Turn the accumulators of parameters into statistics of every layer and of all layers together.

    Equivalent to `statistics(merge(parts of a layer))` for each layer, then for all layers merged. The statistics that
    are linear in the gradient (all but skewness and kurtosis) are multiplied by the sample's scale.

    Parameters
    ----------
    accumulators
        One array `[B, 8]` per parameter.
    layers
        The number of each parameter's layer: 0 first, then the same as before or one more.
    scale
        `[B]`, a factor for each sample's gradients.

    Returns
    -------
    NDArray
        `[B, 8 · (layers + 1)]`, layer by layer in the order of `STATISTICS`, all layers together last.

    Raises
    ------
    KernelError
        The parts, layers and scale do not fit one another, or the back end cannot run here.
    """
    parts = [checked_accumulators(part) for part in accumulators]
    counted = bool(layers) and layers[0] == 0 and all(after - before in (0, 1) for before, after in pairwise(layers))
    if not parts or len(parts) != len(layers) or not counted:
        raise KernelError(
            f"layer_statistics: {len(parts)} accumulators of the layers {list(layers)}: pass at least one, and one layer "
            "number for each: 0 first, then the same as before or one more"
        )
    factors = np.ascontiguousarray(scale, dtype=np.float64)
    if factors.ndim != 1 or any(len(part) != len(factors) for part in parts):
        raise KernelError(
            f"layer_statistics: accumulators of {sorted({len(part) for part in parts})} samples and a scale of shape "
            f"{list(factors.shape)}: pass parts of one batch, and one number per sample"
        )
    contiguous = [np.ascontiguousarray(part) for part in parts]
    return np.asarray(load(backend).layer_statistics(contiguous, [int(layer) for layer in layers], factors))


def softmax_features(logits: Array, labels: Array, *, backend: str = "auto") -> Array:
    """Return entropy, maximum softmax and residual of predictions, exact even for confident ones.

    The residual s = 1 − p_ŷ = sigmoid(logsumexp(z_others) − z_ŷ) is never computed as the difference of two nearly equal
    numbers. The entropy is divided by log q, so it lies in [0, 1] (Oberdiek et al. 2018, eq. 3). With u the softmax over
    the other classes, H = −(1−s)·log1p(−s) − s·(log s + Σ u log u).

    Parameters
    ----------
    logits
        `[B, q]`, two classes or more.
    labels
        Predicted classes `[B]`, from 0 to q − 1.

    Returns
    -------
    NDArray
        float64 `[B, 3]`.

    Raises
    ------
    KernelError
        The shapes do not fit, a label is not one of the classes, or the back end cannot run here.
    """
    scores, classes = np.ascontiguousarray(logits, dtype=np.float64), np.ascontiguousarray(labels, dtype=np.int64)
    if scores.ndim != 2 or scores.shape[1] < 2 or classes.shape != scores.shape[:1]:
        raise KernelError(
            f"softmax_features: logits of shape {list(scores.shape)} and labels of shape {list(classes.shape)}: pass "
            "logits [B, q] of two classes or more, and labels [B]"
        )
    if len(classes) and not 0 <= classes.min() <= classes.max() < scores.shape[1]:
        raise KernelError(f"softmax_features: a label is outside 0..{scores.shape[1] - 1}: pass predicted classes")
    return np.asarray(load(backend).softmax_features(scores, classes))
