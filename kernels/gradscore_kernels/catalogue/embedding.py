"""Embeddings: each δ is added to the row that was looked up in the table."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._checks import kernel
from gradscore_kernels._errors import KernelError
from gradscore_kernels.backends.registry import run
from gradscore_kernels.catalogue.spec import Attributes, KernelSpec

Accumulators = NDArray[np.float64]
Array = NDArray[Any]


@kernel(ids="B T", delta="B T d")
def embedding_moments(
    ids: Array, delta: Array, vocabulary: int, *, backend: str = "auto", threads: int | None = None
) -> Accumulators:
    """Return accumulators of an embedding table's gradient `[vocabulary, d]`: row ids[t] gets δ_t.

    Rows without an id are zero. They count in n and in all statistics.

    Parameters
    ----------
    ids
        Row numbers `[B, T]`, int64 or int32, from −vocabulary to vocabulary − 1. Negative ones count from the end, as in
        ONNX `Gather`.
    delta
        The output gradient δ `[B, T, d]`: that of the rows that were looked up.
    vocabulary
        Number of rows of the table.

    Returns
    -------
    NDArray
        Accumulators, float64 `[B, 8]`.

    Raises
    ------
    KernelError
        An id is not a row of the table, the arrays do not fit one another, or the back end cannot run here.
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
            f"{-vocabulary}..{vocabulary - 1}: pass the number of rows of the table as vocabulary"
        )
    rows = np.where(ids < 0, ids + vocabulary, ids)
    return run("embedding_moments", rows, delta, int(vocabulary), backend=backend, threads=threads)


def embedding_gradient(ids: Array, delta: Array, vocabulary: int) -> Array:
    """Return G `[B, vocabulary, d]`: row i is the sum of δ_t over the positions t whose id is i."""
    gradient = np.zeros((len(ids), vocabulary, delta.shape[2]))
    with np.errstate(invalid="ignore"):
        np.add.at(gradient, (np.arange(len(ids))[:, None], ids), delta.astype(np.float64))
    return gradient


def _vocabulary(attributes: Attributes) -> tuple[int]:
    return (int(attributes["vocabulary"]),)


SPECS = (
    KernelSpec("embedding", embedding_moments, ("activation", "delta"), embedding_gradient, _vocabulary),
)  # it takes no activation: its slot holds token ids
