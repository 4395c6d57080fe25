"""A caller's batch -> the model's inputs: from arrays, encoded images, or a mapping of several."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore.errors import InputError
from gradscore.inputs.images import decode, fitted
from gradscore.model.metadata import ModelMetadata

Batch = NDArray[Any] | Sequence[bytes] | Mapping[str, NDArray[Any]] | Any  # Any: arrays of other libraries, by DLPack
Tensors = Mapping[str, NDArray[Any]]


def tensors_of(batch: Batch, metadata: ModelMetadata) -> dict[str, NDArray[Any]]:
    """Return {name of the model's input: array [B, ...]}.

    Raises
    ------
    InputError
        The arrays do not fit the model's inputs or one another, lie on a device, or an image cannot be decoded.
    """
    names = [tensor.name for tensor in metadata.inputs]
    given = batch if isinstance(batch, Mapping) else {names[0]: batch}
    if set(given) != set(names):
        raise InputError(
            f"the model takes the inputs {', '.join(names)}, but was given {', '.join(given)}: pass a mapping"
        )
    tensors = {
        tensor.name: fitted(_array(given[tensor.name], metadata), metadata.preprocessing, tensor.shape, tensor.dtype)
        for tensor in metadata.inputs
    }
    if len({len(array) for array in tensors.values()}) > 1:
        raise InputError(
            f"the inputs differ in their number of samples: {', '.join(f'{k} {len(v)}' for k, v in tensors.items())}"
        )
    return tensors


def samples_of(tensors: Tensors) -> int:
    """Return the number of samples of a batch."""
    return len(next(iter(tensors.values())))


def _array(given: Any, metadata: ModelMetadata) -> NDArray[Any]:
    if isinstance(given, Sequence) and given and all(isinstance(item, bytes) for item in given):
        return np.stack([decode(item, metadata.preprocessing) for item in given])
    if isinstance(given, np.ndarray) or not hasattr(given, "__dlpack__"):
        return np.asarray(given)
    try:
        return np.from_dlpack(given)
    except (BufferError, RuntimeError, TypeError) as error:
        raise InputError(f"the array cannot be read without a copy ({error}): copy it to main memory first") from error
