"""Bytes and arrays -> the model's input: decode, check, resize and normalise as the metadata says."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore.errors import InputError
from gradscore.inputs.encoded import planes
from gradscore.model.preprocessing import Preprocessing


def decode(content: bytes, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Decode an image into the model's input, float32 [C, H, W]: its `pixels`, normalised."""
    return normalise(pixels(content, preprocessing), preprocessing)


def pixels(content: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode an image at the model's size, uint8 [C, H, W].

    See `planes` for the images that it refuses.
    """
    shape = preprocessing.channels, preprocessing.height, preprocessing.width
    return np.frombuffer(planes(content, preprocessing), np.uint8).reshape(shape)


def normalise(channels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return (pixel · scale − mean) / std per channel, float32.

    `channels` is [..., C, H, W].
    """
    mean = np.asarray(preprocessing.mean, dtype=np.float32).reshape(-1, 1, 1)
    std = np.asarray(preprocessing.std, dtype=np.float32).reshape(-1, 1, 1)
    normalised = channels.astype(np.float32, order="C")
    normalised *= np.float32(preprocessing.scale)  # in place: allocating new arrays costs more than the arithmetic
    normalised -= mean
    normalised /= std
    return normalised


def numbers(batch: NDArray[Any], preprocessing: Preprocessing, dtype: str) -> NDArray[Any]:
    """Return the result of `fitted` as the model's numbers: pixels normalised, all else unchanged."""
    return normalise(batch, preprocessing).astype(dtype, copy=False) if batch.dtype == np.uint8 else batch


def fitted(
    array: NDArray[np.generic],
    preprocessing: Preprocessing,
    input_shape: tuple[int | None, ...],
    dtype: str = "float32",
) -> NDArray[Any]:
    """Return a batch in the shape of the model's input.

    Pixels stay uint8. Other numbers get the input's type. The channel axis of images may be last ([B, H, W, C]). If
    the model has one channel, it may be missing ([B, H, W]).

    Raises
    ------
    InputError
        The array's type or shape does not fit the model's input.
    """
    if not dtype.startswith("float"):
        return _to_integers(array, input_shape, dtype)
    if array.dtype.kind not in "fu" or (array.dtype.kind == "u" and array.dtype != np.uint8):
        raise InputError(
            f"an array of type {array.dtype} is not an input: give uint8 pixels or floats already preprocessed"
        )
    batch = _with_channel_axis(array, preprocessing) if preprocessing.kind == "image" else array
    _require_fit(array, batch, input_shape)
    if array.dtype == np.uint8 and preprocessing.kind != "image":
        raise InputError("uint8 arrays are pixels, but this model does not take images: give floats")
    return np.ascontiguousarray(batch, dtype=np.uint8 if array.dtype == np.uint8 else dtype)


def _to_integers(array: NDArray[np.generic], input_shape: tuple[int | None, ...], dtype: str) -> NDArray[Any]:
    if array.dtype.kind not in "iu":
        raise InputError(
            f"an array of type {array.dtype} is not an input: this model takes {dtype}, for example token ids"
        )
    _require_fit(array, array, input_shape)
    return np.ascontiguousarray(array, dtype=dtype)


def _require_fit(given: NDArray[np.generic], batch: NDArray[np.generic], input_shape: tuple[int | None, ...]) -> None:
    if not _fits(batch.shape, input_shape):
        wanted = ", ".join("B" if axis == 0 else str(extent or "?") for axis, extent in enumerate(input_shape))
        raise InputError(f"an array of shape {list(given.shape)} does not fit the model's input [{wanted}]")


def _with_channel_axis(array: NDArray[np.generic], preprocessing: Preprocessing) -> NDArray[np.generic]:
    size = (preprocessing.height, preprocessing.width)
    if preprocessing.channels == 1 and array.ndim == 3 and array.shape[1:] == size:
        return array[:, None]
    first = (preprocessing.channels, *size)
    if array.ndim == 4 and array.shape[1:] == (*size, preprocessing.channels) and array.shape[1:] != first:
        return np.moveaxis(array, -1, 1)
    return array


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(extent in (None, size) for size, extent in zip(shape, wanted, strict=True))
