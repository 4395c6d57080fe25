"""Pictures of the study: digits for the CNNs, and unknown concepts.

All are uint8 [N, 1, 28, 28], light on dark. A data folder holds, at any depth, the files of the data sets with their
original names: the idx files of EMNIST or MNIST, those of notMNIST below a folder `notmnist`, the zips of Omniglot
below `omniglot`, and CIFAR-10 as a zip of pictures below `cifar10`. Without a folder, scikit-learn's digits are used,
enlarged.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gradscore import InputError, open_source
from gradscore.inputs.arrays import open_idx
from gradscore.inputs.images import decode
from gradscore.model.preprocessing import Preprocessing

SIDE = 28
PIXELS = Preprocessing("image", 1, SIDE, SIDE, scale=1.0, color="convert")  # grey, 28×28, still 0..255
Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Sizes:
    """The number of pictures of each kind in a repetition.

    Attributes
    ----------
    training, validation, test : int
        Pictures of the known concept.
    unknown : int
        Pictures of each unknown concept for testing.
    known_unknowns : int
        Further pictures of each unknown concept for fitting.
    """

    training: int
    validation: int
    test: int
    unknown: int
    known_unknowns: int = 200

    @property
    def known(self) -> int:
        """Total number of pictures of the known concept."""
        return self.training + self.validation + self.test


EMNIST = Sizes(60_000, 20_000, 200_000, 20_000)
MNIST = Sizes(20_000, 10_000, 40_000, 4_000)
DIGITS = Sizes(700, 500, 500, 50, 50)
MINIATURE = Sizes(2_500, 1_000, 2_000, 200, 100)


@dataclass(frozen=True)
class Concepts:
    """All pictures that a repetition draws from.

    Attributes
    ----------
    known : str
        Name of the known concept.
    images : uint8 [N, 1, 28, 28]
        Pictures of the known concept.
    labels : int64 [N]
        Their classes.
    unknown : mapping of str to uint8 arrays
        Pictures of each unknown concept.
    noise : mapping of str to callables
        Functions that draw a synthetic unknown concept: (count, generator) -> pictures.
    sizes : Sizes
        Sizes of the splits.
    known_unknowns : tuple of str
        Unknown concepts for fitting, in the order in which they are added.
    """

    known: str
    images: Images
    labels: NDArray[np.int64]
    unknown: Mapping[str, Images]
    noise: Mapping[str, Callable[[int, np.random.Generator], Images]]
    sizes: Sizes
    known_unknowns: tuple[str, ...]

    @property
    def unknown_names(self) -> tuple[str, ...]:
        """Names of the unknown concepts, synthetic ones last."""
        return (*self.unknown, *self.noise)


def uniform_noise(count: int, rng: np.random.Generator) -> Images:
    """Draw every pixel uniformly from 0..255."""
    return rng.integers(0, 256, (count, 1, SIDE, SIDE), dtype=np.uint8)


def normal_noise(count: int, rng: np.random.Generator) -> Images:
    """Draw every pixel from a normal distribution with mean 127.5 and standard deviation 63.75, clipped."""
    return np.clip(np.round(rng.normal(127.5, 63.75, (count, 1, SIDE, SIDE))), 0, 255).astype(np.uint8)


NOISE = {"normal noise": normal_noise, "uniform noise": uniform_noise}


def read(folder: Path | None, *, miniature: bool = False) -> Concepts:
    """Read the data folder: EMNIST with the paper's sizes, or MNIST with smaller ones.

    Raises
    ------
    InputError
        The folder has no digits.
    """
    if folder is None:
        return _digits()
    if emnist := _found(folder, "emnist-digits-*images-idx3*"):
        images, labels = _idx(emnist, transposed=True)
        letters = _found(folder, "emnist-letters-*images-idx3*")
        known, sizes = "EMNIST digits", EMNIST
        unknown = {"EMNIST letters": _idx(letters, transposed=True)[0]} if letters else {}
    elif mnist := _found(folder, "mnist/*images-idx3*"):
        images, labels = _idx(mnist)
        known, sizes, unknown = "MNIST", MNIST, {}
    else:
        raise InputError(f"{folder} has neither emnist-digits-*-images-idx3-ubyte.gz nor mnist/*-images-idx3-ubyte.gz")
    if zips := _found(folder, "omniglot/*.zip"):
        unknown["Omniglot"] = 255 - _pictures(zips)  # Omniglot is dark on light
    if idx := _found(folder, "notmnist/*images-idx3*"):
        unknown["notMNIST"] = _idx(idx)[0]
    if zips := _found(folder, "cifar10/*.zip"):
        unknown["CIFAR10"] = _pictures(zips)
    fitted = tuple(name for name in ("uniform noise", "CIFAR10", "Omniglot") if name in (*unknown, *NOISE))
    return Concepts(known, images, labels, unknown, NOISE, MINIATURE if miniature else sizes, fitted)


def _digits() -> Concepts:
    """Return scikit-learn's 8×8 digits, enlarged, and the inverted digits as an unknown concept."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.stack([np.asarray(Image.fromarray(one).resize((SIDE, SIDE))) for one in pixels])[:, None]
    unknown, fitted = {"inverted digits": 255 - images}, ("uniform noise", "inverted digits")
    return Concepts("scikit-learn's digits", images, digits.target.astype(np.int64), unknown, NOISE, DIGITS, fitted)


def _found(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.rglob(pattern))


def _idx(paths: list[Path], *, transposed: bool = False) -> tuple[Images, NDArray[np.int64]]:
    listings = [open_idx(path, transposed=transposed) for path in paths]
    images = np.concatenate([listing.entry(0).rows[:][:, None] for listing in listings])
    labels = [int(name.partition("/")[0]) for listing in listings for name in listing.ids()]
    return images, np.array(labels, dtype=np.int64)


def _pictures(paths: list[Path]) -> Images:
    source = open_source(paths)
    with ThreadPoolExecutor() as workers:
        decoded = list(workers.map(lambda entry: decode(entry.content(), PIXELS), source.entries))
    return np.round(np.stack(decoded)).astype(np.uint8)
