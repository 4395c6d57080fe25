"""What concerns a whole network: statistics of its layers, and what its logits alone say of a prediction."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._accumulators import checked_accumulators
from gradscore_kernels._backends import load
from gradscore_kernels._errors import KernelError

Accumulators = NDArray[np.float64]
Array = NDArray[Any]


def layer_statistics(
    accumulators: Sequence[Accumulators], layers: Sequence[int], scale: Array, *, backend: str = "auto"
) -> Accumulators:
    """Statistics of every layer and of all layers together, `[B, 8 · (layers + 1)]`, from its parameters' accumulators.

    Equivalent to `statistics(merge(parts of a layer))`, layer by layer, and of the merged layers at the end, those
    statistics that are linear in the gradient (all but skewness and kurtosis) times the sample's scale.

    Parameters
    ----------
    accumulators
        One array `[B, 8]` per parameter.
    layers
        For each of them the number of its layer: 0, then the same or one more.
    scale
        `[B]`, what the gradients are to be multiplied by.
    """
    parts = [checked_accumulators(part) for part in accumulators]
    counted = bool(layers) and layers[0] == 0 and all(after - before in (0, 1) for before, after in pairwise(layers))
    if not parts or len(parts) != len(layers) or not counted:
        raise KernelError(
            f"layer_statistics: {len(parts)} accumulators of the layers {list(layers)}: pass at least one, and a layer "
            "for each, 0 first and then the same or one more"
        )
    factors = np.ascontiguousarray(scale, dtype=np.float64)
    if factors.ndim != 1 or any(len(part) != len(factors) for part in parts):
        raise KernelError(
            f"layer_statistics: accumulators of {sorted({len(part) for part in parts})} samples and a scale of shape "
            f"{list(factors.shape)}: pass parts of one batch, and one number a sample"
        )
    contiguous = [np.ascontiguousarray(part) for part in parts]
    return np.asarray(load(backend).layer_statistics(contiguous, [int(layer) for layer in layers], factors))


def softmax_features(logits: Array, labels: Array, *, backend: str = "auto") -> Array:
    """Entropy, maximum softmax and residual `[B, 3]` of predictions, in float64 and exact however confident they are.

    The residual s = 1 − p_ŷ = sigmoid(logsumexp(z_others) − z_ŷ) is never the difference of two near-equal numbers.
    Entropy is normalised by log q to [0, 1] (Oberdiek et al. 2018, eq. 3); with u the softmax over the other classes,
    H = −(1−s)·log1p(−s) − s·(log s + Σ u log u).

    Parameters
    ----------
    logits
        `[B, q]`, two classes or more.
    labels
        Predicted classes `[B]`, from 0 to q − 1.
    """
    scores, classes = np.ascontiguousarray(logits, dtype=np.float64), np.ascontiguousarray(labels, dtype=np.int64)
    if scores.ndim != 2 or scores.shape[1] < 2 or classes.shape != scores.shape[:1]:
        raise KernelError(
            f"softmax_features: logits of shape {list(scores.shape)} and labels of shape {list(classes.shape)}: pass "
            "[B, q] of two classes or more, and [B]"
        )
    if len(classes) and not 0 <= classes.min() <= classes.max() < scores.shape[1]:
        raise KernelError(f"softmax_features: a label is outside 0..{scores.shape[1] - 1}: pass predicted classes")
    return np.asarray(load(backend).softmax_features(scores, classes))
