"""Embeddings: each δ is added to the row of the table that was looked up."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._backends import run
from gradscore_kernels._checks import kernel
from gradscore_kernels._errors import KernelError
from gradscore_kernels.catalogue.spec import Attributes, KernelSpec

Accumulators = NDArray[np.float64]
Array = NDArray[Any]


@kernel(ids="B T", delta="B T d")
def embedding_moments(
    ids: Array, delta: Array, vocabulary: int, *, backend: str = "auto", threads: int | None = None
) -> Accumulators:
    """Accumulators of an embedding table's gradient `[vocabulary, d]`: δ_t is added to row ids[t].

    Rows that no id touches are zeros and count in n, mean, minimum and maximum.

    Parameters
    ----------
    ids
        Row numbers `[B, T]`, int64 or int32, from −vocabulary to vocabulary − 1 (negative ones count from the end, as
        in ONNX `Gather`).
    delta
        The loss's derivative by the looked-up rows `[B, T, d]`.
    vocabulary
        Number of rows of the table.
    """
    if isinstance(vocabulary, bool) or not isinstance(vocabulary, int | np.integer) or vocabulary < 1:
        raise KernelError(
            f"embedding_moments: vocabulary is {vocabulary!r}: pass the table's number of rows, 1 or more"
        )
    outside = (ids < -vocabulary) | (ids >= vocabulary)
    if outside.any():
        sample, position = np.argwhere(outside)[0]
        raise KernelError(
            f"embedding_moments: sample {sample} has id {ids[sample, position]} at position {position}, outside "
            f"{-vocabulary}..{vocabulary - 1}: pass the vocabulary of the table that was looked up"
        )
    rows = np.where(ids < 0, ids + vocabulary, ids)
    return run("embedding_moments", rows, delta, int(vocabulary), backend=backend, threads=threads)


def embedding_gradient(ids: Array, delta: Array, vocabulary: int) -> Array:
    """Return G `[B, vocabulary, d]`: row i is Σ δ_t over the positions t whose id is i."""
    gradient = np.zeros((len(ids), vocabulary, delta.shape[2]))
    with np.errstate(invalid="ignore"):
        np.add.at(gradient, (np.arange(len(ids))[:, None], ids), delta.astype(np.float64))
    return gradient


def _vocabulary(attributes: Attributes) -> tuple[int]:
    return (int(attributes["vocabulary"]),)


SPECS = (
    KernelSpec("embedding", embedding_moments, ("activation", "delta"), embedding_gradient, _vocabulary),
)  # token ids are no activations
