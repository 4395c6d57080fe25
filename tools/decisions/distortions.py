"""Corruptions of known pictures, and noise. All take and return uint8 [N, C, H, W]."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]
Distortion = Callable[[Pixels, np.random.Generator], Pixels]

NOISE = 45  # standard deviation of the noise that is added, in 0..255
BLUR = 1.4  # standard deviation of the blur, in pixels of a picture 28 wide
CONTRAST = 0.35  # what is left of it
TURN = 45  # largest angle, degrees
COARSE = 7  # side of the coarse noise that smooth noise enlarges


def noisy(images: Pixels, rng: np.random.Generator) -> Pixels:
    """Add normal noise."""
    return _pixels(images + rng.normal(0, NOISE, images.shape))


def blurred(images: Pixels, _rng: np.random.Generator) -> Pixels:
    """Blur with a Gaussian."""
    blur = ImageFilter.GaussianBlur(BLUR * images.shape[-1] / 28)
    return _each(images, lambda plane, _: plane.filter(blur), np.zeros(len(images)))


def faded(images: Pixels, _rng: np.random.Generator) -> Pixels:
    """Pull every pixel towards its picture's mean."""
    means = images.mean(axis=(1, 2, 3), keepdims=True)
    return _pixels(means + CONTRAST * (images - means))


def occluded(images: Pixels, rng: np.random.Generator) -> Pixels:
    """Cover a square, half as wide as the picture, with grey."""
    out, side = images.copy(), images.shape[-1] // 2
    for image, (row, column) in zip(out, rng.integers(0, images.shape[-1] - side + 1, (len(out), 2)), strict=True):
        image[:, row : row + side, column : column + side] = 128
    return out


def turned(images: Pixels, rng: np.random.Generator) -> Pixels:
    """Turn by an angle of up to 45 degrees in either direction; what comes into sight is black."""
    angles = rng.uniform(-TURN, TURN, len(images))
    return _each(images, lambda plane, angle: plane.rotate(angle, Image.Resampling.BILINEAR), angles)


def uniform(images: Pixels, rng: np.random.Generator) -> Pixels:
    """Draw every pixel uniformly from 0..255."""
    return rng.integers(0, 256, images.shape, dtype=np.uint8)


def normal(images: Pixels, rng: np.random.Generator) -> Pixels:
    """Draw every pixel from a normal distribution with mean 127.5 and standard deviation 63.75."""
    return _pixels(rng.normal(127.5, 63.75, images.shape))


def smooth(images: Pixels, rng: np.random.Generator) -> Pixels:
    """Enlarge coarse uniform noise: soft blobs, which no synthetic kind makes."""
    coarse = rng.integers(0, 256, (*images.shape[:2], COARSE, COARSE), dtype=np.uint8)
    size = (images.shape[-1], images.shape[-2])
    return _each(coarse, lambda plane, _: plane.resize(size, Image.Resampling.BICUBIC), np.zeros(len(images)))


def flat(images: Pixels, rng: np.random.Generator) -> Pixels:
    """Fill each picture with one lightness or colour, and a trace of noise."""
    levels = rng.integers(0, 256, (*images.shape[:2], 1, 1))
    return _pixels(levels + rng.normal(0, 2, images.shape))


CORRUPTIONS: Mapping[str, Distortion] = MappingProxyType(
    {
        "corrupted: noise": noisy,
        "corrupted: blur": blurred,
        "corrupted: contrast": faded,
        "corrupted: occlusion": occluded,
        "corrupted: rotation": turned,
    }
)
NOISES: Mapping[str, Distortion] = MappingProxyType(
    {"uniform noise": uniform, "normal noise": normal, "smooth noise": smooth, "flat pictures": flat}
)


def _pixels(values: NDArray[np.float64]) -> Pixels:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _each(images: Pixels, change: Callable[[Image.Image, float], Image.Image], amounts: NDArray[np.float64]) -> Pixels:
    """Change every channel of every picture by Pillow, with its picture's amount."""
    changed = [
        [np.asarray(change(Image.fromarray(plane), float(amount))) for plane in image]
        for image, amount in zip(images, amounts, strict=True)
    ]
    return np.array(changed, dtype=np.uint8)
