"""Images of every mode, orientation and size, broken images, and arrays of pixels."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gradscore import InputError
from gradscore.inputs.images import decode, fitted, normalise, numbers
from gradscore.model.preprocessing import Preprocessing

GREY = Preprocessing("image", 1, 6, 5)
RGB = Preprocessing("image", 3, 6, 5)
RGBA = Preprocessing("image", 4, 6, 5)


def to_input(array, preprocessing, shape):
    """What `Scorer.score` makes of an array."""
    return numbers(fitted(array, preprocessing, shape), preprocessing, "float32")


def converting(preprocessing):
    return Preprocessing("image", preprocessing.channels, 6, 5, color="convert")


def encoded(image, format="PNG", **options):  # noqa: A002 - Pillow's own name
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(mode="L", size=(5, 6), seed=3):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode) if mode != "RGBA" else Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("mode", "preprocessing"), [("1", GREY), ("L", GREY), ("P", RGB), ("RGB", RGB), ("RGBA", RGBA)]
)
def test_strict_takes_what_fits_without_loss(mode, preprocessing):
    image = picture(mode)
    decoded = decode(encoded(image), preprocessing)
    target = {1: "L", 3: "RGB", 4: "RGBA"}[preprocessing.channels]
    wanted = np.atleast_3d(np.asarray(image.convert(target))).transpose(2, 0, 1) / np.float32(255)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("mode", "format", "preprocessing", "message"),
    [
        ("RGB", "PNG", GREY, r"3 channels \(mode RGB\), the model takes 1 \(L\).*--color convert"),
        ("L", "PNG", RGB, r"1 channel \(mode L\), the model takes 3 \(RGB\)"),
        ("RGBA", "PNG", RGB, r"4 channels \(mode RGBA\), the model takes 3"),
        ("LA", "PNG", GREY, r"2 channels \(mode LA\), the model takes 1"),
        ("P", "PNG", GREY, r"3 channels \(mode P\), the model takes 1"),
        ("CMYK", "JPEG", RGB, r"4 channels \(mode CMYK\), the model takes 3"),
        ("CMYK", "JPEG", RGBA, r"4 channels \(mode CMYK\), the model takes 4 \(RGBA\)"),
    ],
)
def test_strict_refuses_other_channels(mode, format, preprocessing, message):  # noqa: A002 - Pillow's own name
    with pytest.raises(InputError, match=message):
        decode(encoded(picture(mode), format), preprocessing)


@pytest.mark.parametrize("preprocessing", [GREY, RGB, RGBA])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_convert_takes_every_8_bit_mode(mode, preprocessing):
    image = picture(mode)
    format_ = "TIFF" if mode == "CMYK" else "PNG"
    target = {1: "L", 3: "RGB", 4: "RGBA"}[preprocessing.channels]
    wanted = np.atleast_3d(np.asarray(image.convert(target))).transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_allclose(decode(encoded(image, format_), converting(preprocessing)), wanted, rtol=1e-6)


@pytest.mark.parametrize("preprocessing", [GREY, RGB])
def test_palette_with_transparency_is_converted_in_silence(preprocessing):
    image = picture("P")
    decoded = decode(encoded(image, transparency=bytes(range(256))), converting(preprocessing))
    wanted = np.atleast_3d(np.asarray(image.convert({1: "L", 3: "RGB"}[preprocessing.channels]))).transpose(2, 0, 1)
    np.testing.assert_allclose(decoded, wanted / np.float32(255), rtol=1e-6)


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_upper_8_bits(format_):
    """Pillow alone would clip at 255: every bright image would be white."""
    deep = np.random.default_rng(5).integers(0, 2**16, (6, 5), dtype=np.uint16)
    content = encoded(Image.fromarray(deep), format_)
    np.testing.assert_allclose(decode(content, converting(GREY))[0], (deep >> 8) / np.float32(255), rtol=1e-6)
    with pytest.raises(InputError, match=r"samples of 16 bits \(mode I;16\).*--color convert"):
        decode(content, GREY)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_samples_of_32_bits_are_refused_even_when_converting(dtype):
    content = encoded(Image.fromarray(np.ones((6, 5), dtype=dtype)), "TIFF")
    with pytest.raises(InputError, match=r"samples of 32 bits.*range is unknown: convert it to 8 bits"):
        decode(content, converting(GREY))


@pytest.mark.parametrize("format_", ["GIF", "TIFF", "WEBP"])
def test_first_frame_of_an_animation_counts(format_):
    frames = [Image.new("RGB", (5, 6), color) for color in ("white", "black")]
    content = encoded(frames[0], format_, save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(decode(content, RGB), 1)


def test_orientation_is_applied():
    image = picture("L", (6, 5))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    wanted = np.rot90(np.asarray(image), -1) / np.float32(255)
    np.testing.assert_allclose(decode(encoded(image, exif=exif), GREY)[0], wanted, rtol=1e-6)


def test_another_size_is_resized_with_antialiasing():
    stripes = np.zeros((60, 50), dtype=np.uint8)
    stripes[:, ::2] = 255
    decoded = decode(encoded(Image.fromarray(stripes)), GREY)
    assert decoded.shape == (1, 6, 5)
    np.testing.assert_allclose(decoded, 0.5, atol=0.05)  # no aliasing: stripes become grey


def test_channels_are_normalised_each_by_its_own_numbers():
    preprocessing = Preprocessing("image", 3, 1, 1, 1 / 255, (0.1, 0.2, 0.3), (0.5, 1.0, 2.0))
    pixels = np.array([255, 51, 0], dtype=np.uint8).reshape(3, 1, 1)
    np.testing.assert_allclose(normalise(pixels, preprocessing).ravel(), [1.8, 0, -0.15], atol=1e-6)


def test_zero_bytes_and_other_files_are_named_as_such():
    with pytest.raises(InputError, match="empty"):
        decode(b"", GREY)
    with pytest.raises(InputError, match=r"not an image of a known format.*PNG"):
        decode(b"id,label\n1,2\n", GREY)
    with pytest.raises(InputError, match="not an image of a known format"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\n", GREY)  # would start a PostScript interpreter


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_images_are_refused(format_, share):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), format_)
    with pytest.raises(InputError, match=r"truncated or damaged|not an image"):
        decode(content[: int(len(content) * share)], converting(GREY))


@pytest.mark.parametrize("pixels", [1500, 2500])
def test_an_image_with_too_many_pixels_is_refused_whatever_pillow_warns(pixels, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="too large to decode safely"):
        decode(encoded(Image.new("L", (50, pixels // 50))), GREY)
    assert decode(encoded(Image.new("L", (50, 20))), GREY).shape == (1, 6, 5)


def test_too_many_pixels_are_refused_with_warnings_off(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(InputError, match=r"50×30 pixels.*1,000"):
        decode(encoded(Image.new("L", (50, 30))), GREY)


def test_a_header_that_promises_a_huge_image_costs_no_memory():
    content = bytearray(encoded(Image.new("L", (5, 6))))
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(InputError, match="too large to decode safely"):
        decode(bytes(content), GREY)


@pytest.mark.parametrize("failure", [struct.error, IndexError, ZeroDivisionError, UserWarning("corrupt EXIF data")])
def test_whatever_a_decoder_raises_is_an_error_of_that_image(failure, monkeypatch):
    def broken(_, **options):
        raise failure

    monkeypatch.setattr("gradscore.inputs.encoded._turn", broken)
    with pytest.raises(InputError, match="truncated or damaged: "):
        decode(encoded(picture()), GREY)


def test_lack_of_memory_is_not_blamed_on_the_image(monkeypatch):
    def exhausted(_, **options):
        raise MemoryError

    monkeypatch.setattr("gradscore.inputs.encoded._turn", exhausted)
    with pytest.raises(MemoryError):
        decode(encoded(picture()), GREY)


_SEEDS = [
    encoded(picture("RGB", (17, 13)), format_) for format_ in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP")
] + [encoded(picture("RGB", (17, 13)), "TIFF", compression="tiff_lzw")]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(_SEEDS), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8))
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_give_an_image_or_an_input_error(content, damages):
    damaged = bytearray(content)
    for place, value in damages:
        damaged[int(place * len(damaged))] = value
    try:
        decoded = decode(bytes(damaged), converting(RGB))
    except InputError:
        return
    assert decoded.shape == (3, 6, 5)
    assert ((decoded >= 0) & (decoded <= 1)).all()


SHAPE = (None, 3, 6, 5)


def test_arrays_of_pixels_and_floats(rng):
    pixels = rng.integers(0, 256, (2, 3, 6, 5), dtype=np.uint8)
    wanted = pixels / np.float32(255)
    np.testing.assert_allclose(to_input(pixels, RGB, SHAPE), wanted, rtol=1e-6)
    np.testing.assert_allclose(to_input(pixels.transpose(0, 2, 3, 1), RGB, SHAPE), wanted, rtol=1e-6)
    np.testing.assert_array_equal(to_input(wanted, RGB, SHAPE), wanted)
    doubles = wanted.astype(np.float64)
    assert to_input(doubles, RGB, SHAPE).dtype == np.float32
    assert to_input(pixels[:0], RGB, SHAPE).shape == (0, 3, 6, 5)


def test_grey_arrays_may_lack_the_channel_axis(rng):
    pixels = rng.integers(0, 256, (2, 6, 5), dtype=np.uint8)
    np.testing.assert_array_equal(
        to_input(pixels, GREY, (None, 1, 6, 5)), to_input(pixels[:, None], GREY, (None, 1, 6, 5))
    )


@pytest.mark.parametrize(
    ("array", "preprocessing", "shape", "message"),
    [
        (
            np.zeros((2, 3, 6, 4), np.uint8),
            RGB,
            SHAPE,
            r"shape \[2, 3, 6, 4\] does not fit the model's input \[B, 3, 6, 5\]",
        ),
        (np.zeros((2, 6, 5), np.uint8), RGB, SHAPE, "does not fit"),
        (np.zeros((2, 3, 6, 5), np.int64), RGB, SHAPE, "type int64 is not an input: give uint8 pixels or floats"),
        (np.zeros((2, 3, 6, 5), np.uint16), RGB, SHAPE, "type uint16"),
        (np.zeros((2, 3, 6, 5), bool), RGB, SHAPE, "type bool"),
        (np.array([["a", "b"]]), Preprocessing(), (None, 2), "type <U1"),
        (np.zeros((2, 7), np.uint8), Preprocessing(), (None, 7), "does not take images: give floats"),
        (np.zeros((2, 7)), Preprocessing(), (None, None, 3), r"does not fit the model's input \[B, \?, 3\]"),
    ],
)
def test_arrays_that_do_not_fit(array, preprocessing, shape, message):
    with pytest.raises(InputError, match=message):
        to_input(array, preprocessing, shape)
