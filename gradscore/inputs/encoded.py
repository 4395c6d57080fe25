"""Encoded image -> pixels at the model's size, with Pillow alone.

Decoding processes import this module, and they load no NumPy.
"""

import io
import sys

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from gradscore.errors import InputError
from gradscore.model.preprocessing import Preprocessing

IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_LIKELIEST_FIRST = sorted(IMAGE_FORMATS, key=lambda name: name not in ("JPEG", "PNG"))  # the order that Pillow tries
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_FITTING = {
    "L": {"1", "L"},
    "RGB": {"P", "RGB", "YCbCr"},
    "RGBA": {"RGBA"},
}  # what `strict` accepts for each model mode
_SIXTEEN_BIT = {"I;16", "I;16B", "I;16L", "I;16N"}
_NO_FIXED_RANGE = {"I", "F"}
_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}  # fmt: skip


def planes(content: bytes, preprocessing: Preprocessing) -> bytes:
    """Decode an image at the model's size into 8-bit samples, [C, H, W] in C order.

    EXIF orientation is applied. An image of another size is resized and cropped as the metadata says, like
    `torchvision.transforms.Resize` and `CenterCrop` do. Of an animated or multi-page image, the first frame is used.
    With the metadata's `convert`, transparency is dropped and 16-bit grey keeps its upper 8 bits.

    Raises
    ------
    InputError
        The bytes are not a whole image of a known format, the image has more pixels than
        `PIL.Image.MAX_IMAGE_PIXELS`, or its channels do not fit the model.
    """
    if not content:
        raise InputError("the file is empty (zero bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=_LIKELIEST_FIRST) as image:
            _refuse_bomb(image.size)
            _turn(image)
            found = _resized(_with_channels(image, preprocessing), preprocessing)
            bands = found.split() if preprocessing.channels > 1 else (found,)
            return b"".join(band.tobytes() for band in bands)
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"not an image of a known format ({', '.join(IMAGE_FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"the image is too large to decode safely: {error}") from error
    except Exception as error:  # on damaged data a decoder may raise any exception; one image must not end a run
        raise InputError(f"the image is truncated or damaged: {error or type(error).__name__}") from error


def _turn(image: Image.Image) -> None:
    """Load the image and apply its EXIF orientation.

    Few images have one, and `exif_transpose` is slow without.
    """
    image.load()  # a PNG may store its orientation after its pixels
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        ImageOps.exif_transpose(image, in_place=True)


def _refuse_bomb(size: tuple[int, int], once: str = "") -> None:
    """Refuse images above Pillow's limit.

    Pillow itself only warns up to twice the limit, but a row must not depend on warning filters.
    """
    limit, (width, height) = Image.MAX_IMAGE_PIXELS, size
    if limit is not None and width * height > limit:
        raise InputError(
            f"the image is too large to decode safely: {width}×{height} pixels{once}; the limit is {limit:,} "
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
        raise InputError(f"the image has {_described(image)}, whose value range is unknown: convert it to 8 bits")
    if image.mode in _SIXTEEN_BIT:  # Pillow would clip at 255
        image = Image.frombytes("L", image.size, image.tobytes()[_upper_byte(image.mode) :: 2])
    if mode != "RGBA":
        image.info.pop("transparency", None)  # a palette's transparency: Pillow would warn for each image
    return image if image.mode == mode else image.convert(mode)


def _upper_byte(mode: str) -> int:
    big = mode == "I;16B" or (mode == "I;16N" and sys.byteorder == "big")
    return 0 if big else 1


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
    """Return where a centred crop begins.

    It is negative if the image is smaller than the crop. Pillow then pads with black.
    """
    return round((extent - wanted) / 2) if extent >= wanted else -((wanted - extent) // 2)
