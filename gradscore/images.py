"""Bytes and arrays -> the model's input: decode, check, resize, normalise, as the scoring model's metadata says."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from gradscore.errors import InputError
from gradscore.metadata import Preprocessing

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_CHANNELS = {"1": 1, "L": 1, "LA": 2, "P": 3, "RGB": 3, "YCbCr": 3, "RGBA": 4, "CMYK": 4}


def decode(content: bytes, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return an encoded image as the model's input, float32 [C, H, W].

    EXIF orientation is applied; an image of another size is resized (bilinear, antialiased, aspect not kept).

    Raises
    ------
    InputError
        The bytes are no whole image of an allowed format, or the channels do not fit.
    """
    if not content:
        raise InputError("the file is empty (zero bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            image = ImageOps.exif_transpose(opened)
            fitted = _resized(_with_channels(image, preprocessing), preprocessing)
            pixels = np.asarray(fitted, dtype=np.uint8)
    except UnidentifiedImageError as error:
        raise InputError(f"not an image of a known format ({', '.join(FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"the image is too large to decode safely: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(f"the image is truncated or damaged: {error}") from error
    channels_first = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    return normalise(channels_first, preprocessing)


def normalise(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return (pixel · scale − mean) / std per channel, float32; `pixels` is [..., C, H, W]."""
    mean = np.asarray(preprocessing.mean, dtype=np.float32).reshape(-1, 1, 1)
    std = np.asarray(preprocessing.std, dtype=np.float32).reshape(-1, 1, 1)
    scaled = pixels.astype(np.float32) * np.float32(preprocessing.scale)
    normalised: NDArray[np.float32] = (scaled - mean) / std
    return np.ascontiguousarray(normalised)


def to_input(array: NDArray[np.generic], preprocessing: Preprocessing, input_shape: tuple[int | None, ...]) -> NDArray[np.float32]:
    """Return a batch as the model's input: uint8 pixels are normalised like decoded images, floats are taken as they are.

    Images may lack the channel axis where the model has one channel ([B, H, W]), or have it last ([B, H, W, C]).

    Raises
    ------
    InputError
        The array is neither uint8 nor floating point, or does not fit the model's input shape.
    """
    if array.dtype.kind not in "fu" or (array.dtype.kind == "u" and array.dtype != np.uint8):
        raise InputError(f"an array of type {array.dtype} is not an input: give uint8 pixels or floats already preprocessed")
    batch = _with_channel_axis(array, preprocessing) if preprocessing.kind == "image" else array
    if not _fits(batch.shape, input_shape):
        wanted = ", ".join("B" if extent is None and axis == 0 else str(extent or "?") for axis, extent in enumerate(input_shape))
        raise InputError(f"an array of shape {list(array.shape)} does not fit the model's input [{wanted}]")
    if array.dtype == np.uint8:
        if preprocessing.kind != "image":
            raise InputError("uint8 arrays are pixels, but this model does not take images: give floats")
        return normalise(batch.astype(np.uint8, copy=False), preprocessing)
    return np.ascontiguousarray(batch, dtype=np.float32)


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


def _with_channels(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    mode = _MODES[preprocessing.channels]
    if preprocessing.color == "strict" and _CHANNELS.get(image.mode) != preprocessing.channels:
        found = _CHANNELS.get(image.mode)
        described = f"{found} channels" if found else "samples of another depth"
        raise InputError(
            f"the image has {described} (mode {image.mode}), the model takes {preprocessing.channels} ({mode}): "
            "convert it, or prepare the model with --color convert"
        )
    return image if image.mode == mode else image.convert(mode)


def _resized(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    size = (preprocessing.width, preprocessing.height)
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
