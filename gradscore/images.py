"""Bytes and arrays -> the model's input: decode, check, resize, normalise, as the scoring model's metadata says."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from gradscore.errors import InputError
from gradscore.metadata import Preprocessing

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_FITTING = {"L": {"1", "L"}, "RGB": {"P", "RGB", "YCbCr"}, "RGBA": {"RGBA"}}  # what `strict` takes for each mode
_SIXTEEN_BIT = {"I;16", "I;16B", "I;16L", "I;16N"}
_NO_FIXED_RANGE = {"I", "F"}
_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}  # fmt: skip


def decode(content: bytes, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return an encoded image as the model's input, float32 [C, H, W]: its `pixels`, normalised."""
    return normalise(pixels(content, preprocessing), preprocessing)


def pixels(content: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return an encoded image at the model's size, uint8 [C, H, W].

    EXIF orientation is applied; an image of another size is resized and cropped as the metadata says, like
    `torchvision.transforms.Resize` and `CenterCrop` do it. Of an animated or multi-page image the first frame counts.
    Where the metadata says `convert`, transparency is dropped and 16-bit grey keeps its upper 8 bits.

    Raises
    ------
    InputError
        The bytes are no whole image of an allowed format, hold more pixels than `PIL.Image.MAX_IMAGE_PIXELS`, or the
        channels do not fit.
    """
    if not content:
        raise InputError("the file is empty (zero bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _refuse_bomb(image.size)
            ImageOps.exif_transpose(image, in_place=True)
            found = np.asarray(_resized(_with_channels(image, preprocessing), preprocessing), dtype=np.uint8)
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"not an image of a known format ({', '.join(FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"the image is too large to decode safely: {error}") from error
    except Exception as error:  # damaged data makes decoders raise nearly anything; one image must not end a run
        raise InputError(f"the image is truncated or damaged: {error or type(error).__name__}") from error
    return found[None] if found.ndim == 2 else np.moveaxis(found, -1, 0)


def normalise(channels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return (pixel · scale − mean) / std per channel, float32; `channels` is [..., C, H, W]."""
    mean = np.asarray(preprocessing.mean, dtype=np.float32).reshape(-1, 1, 1)
    std = np.asarray(preprocessing.std, dtype=np.float32).reshape(-1, 1, 1)
    normalised = channels.astype(np.float32, order="C")
    normalised *= np.float32(preprocessing.scale)  # in place: new arrays of this size cost more than the arithmetic
    normalised -= mean
    normalised /= std
    return normalised


def numbers(batch: NDArray[Any], preprocessing: Preprocessing, dtype: str) -> NDArray[Any]:
    """Return what `fitted` returned in the model's own numbers: pixels normalised, all else as it is."""
    return normalise(batch, preprocessing).astype(dtype, copy=False) if batch.dtype == np.uint8 else batch


def fitted(
    array: NDArray[np.generic],
    preprocessing: Preprocessing,
    input_shape: tuple[int | None, ...],
    dtype: str = "float32",
) -> NDArray[Any]:
    """Return a batch in the shape of the model's input: pixels as uint8, other numbers in the input's own type.

    Images may lack the channel axis where the model has one channel ([B, H, W]), or have it last ([B, H, W, C]).

    Raises
    ------
    InputError
        The array is neither uint8 nor floating point, or does not fit the model's input shape.
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
        raise InputError(f"an array of type {array.dtype} is not an input: the model takes {dtype}, such as token ids")
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


def _refuse_bomb(size: tuple[int, int], once: str = "") -> None:
    """Pillow itself only warns up to twice its limit; a row must not depend on how warnings are filtered."""
    limit, (width, height) = Image.MAX_IMAGE_PIXELS, size
    if limit is not None and width * height > limit:
        raise InputError(
            f"the image is too large to decode safely: {width}×{height} pixels{once}, the limit is {limit:,} "
            "(PIL.Image.MAX_IMAGE_PIXELS)"
        )


def _with_channels(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    mode = _MODES[preprocessing.channels]
    if preprocessing.color == "strict" and image.mode not in _FITTING[mode]:
        raise InputError(
            f"the image has {_described(image)}, the model takes {preprocessing.channels} ({mode}): "
            "convert it, or prepare the model with --color convert"
        )
    if image.mode in _NO_FIXED_RANGE:
        raise InputError(f"the image has {_described(image)}, whose range is not known: convert it to 8 bits")
    if image.mode in _SIXTEEN_BIT:  # Pillow would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if mode != "RGBA":
        image.info.pop("transparency", None)  # a palette's; dropped, without a warning for each image
    return image if image.mode == mode else image.convert(mode)


def _described(image: Image.Image) -> str:
    if image.mode in _SIXTEEN_BIT:
        return f"samples of 16 bits (mode {image.mode})"
    if image.mode in _NO_FIXED_RANGE:
        return f"samples of 32 bits (mode {image.mode})"
    count = 3 if image.mode == "P" else len(image.getbands())
    return f"{count} channel{'s' if count > 1 else ''} (mode {image.mode})"


def _resized(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    size = _size_to_crop(image.size, preprocessing)
    if image.size != size:
        _refuse_bomb(size, " once resized")
        image = image.resize(size, _RESAMPLING[preprocessing.interpolation])
    if image.size == (preprocessing.width, preprocessing.height):
        return image
    left = _margin(image.width, preprocessing.width)
    top = _margin(image.height, preprocessing.height)
    return image.crop((left, top, left + preprocessing.width, top + preprocessing.height))


def _size_to_crop(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    if len(preprocessing.resize) == 2:
        return preprocessing.resize[1], preprocessing.resize[0]
    if len(preprocessing.resize) == 1:
        (width, height), shorter = size, preprocessing.resize[0]
        return (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)
    return size if preprocessing.crop == "center" else (preprocessing.width, preprocessing.height)


def _margin(extent: int, wanted: int) -> int:
    """Return where a centred crop begins; before 0 where the image is smaller, which Pillow fills with black."""
    return round((extent - wanted) / 2) if extent >= wanted else -((wanted - extent) // 2)
