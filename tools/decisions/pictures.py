"""Pictures from the files of their data sets, read by gradscore's own readers, in the size that a task asks for.

A data folder holds the files with their original names, at any depth: the idx files of MNIST below a folder `mnist`,
those of notMNIST below `notmnist` and of Fashion-MNIST below `fashion-mnist` (so Debian's package dataset-fashion-mnist
lays them), the zips of Omniglot below `omniglot`, and CIFAR-10 as a zip of pictures below `cifar10`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gradscore import InputError, open_source
from gradscore.inputs.arrays import open_idx
from gradscore.inputs.images import decode
from gradscore.model.preprocessing import Preprocessing

Pixels = NDArray[np.uint8]

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
PHOTOGRAPHS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class DataSet:
    """Where the files of a data set lie, and how its pictures are told apart.

    Attributes
    ----------
    pattern : str
        Glob for its files, below a data folder; empty if scikit-learn ships them.
    class_names : tuple of str
        Names of its classes in the order of their numbers; empty if the classes are not read.
    inverted : bool
        Whether its pictures are dark on light. They are read light on dark.
    """

    pattern: str
    class_names: tuple[str, ...] = ()
    inverted: bool = False


DATA_SETS: Mapping[str, DataSet] = MappingProxyType(
    {
        "MNIST": DataSet("mnist/*images-idx3*", DIGITS),
        "Fashion-MNIST": DataSet("fashion-mnist/*images-idx3*", CLOTHES),
        "notMNIST": DataSet("notmnist/*images-idx3*"),
        "Omniglot": DataSet("omniglot/*.zip", inverted=True),
        "CIFAR-10": DataSet("cifar10/*.zip", PHOTOGRAPHS),
        "scikit-learn's digits": DataSet("", DIGITS),
    }
)


class Stored(ABC):
    """The pictures of a data set, not decoded yet, and their classes, int64 [N]: 0 where none is known."""

    classes: NDArray[np.int64]

    @abstractmethod
    def pixels(self, places: NDArray[np.int64], channels: int, side: int) -> Pixels:
        """Return the pictures at these places, uint8 [n, channels, side, side]."""


class GreyPictures(Stored):
    """Grey pictures in one array, uint8 [N, H, W]."""

    def __init__(self, images: Pixels, classes: NDArray[np.int64]) -> None:
        self._images, self.classes = images, classes

    @classmethod
    def of_files(cls, paths: list[Path]) -> "GreyPictures":
        """Read idx files."""
        listings = [open_idx(path, transposed=False) for path in paths]
        images = np.concatenate([listing.entry(0).rows[:] for listing in listings])
        return cls(images, np.array([int(name.partition("/")[0]) for listing in listings for name in listing.ids()]))

    @classmethod
    def shipped(cls) -> "GreyPictures":
        """Return the handwritten digits, 8×8, that scikit-learn ships."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        return cls(np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target.astype(np.int64))

    def pixels(self, places: NDArray[np.int64], channels: int, side: int) -> Pixels:
        """Resize the pictures, and repeat them over the channels."""
        return fitted(self._images[places], channels, side)


class ZippedFiles(Stored):
    """Pictures in zips, with the class as their folder's name."""

    def __init__(self, paths: list[Path], class_names: tuple[str, ...]) -> None:
        self._entries = list(open_source(paths).entries)
        numbers = {name: number for number, name in enumerate(class_names)}
        self.classes = np.array([numbers.get(Path(entry.id).parent.name, 0) for entry in self._entries])

    def pixels(self, places: NDArray[np.int64], channels: int, side: int) -> Pixels:
        """Decode the pictures, in colour or in grey."""
        form = Preprocessing("image", channels, side, side, scale=1.0, color="convert")  # still 0..255
        contents = [self._entries[place].content() for place in places]
        return np.round(np.stack([decode(content, form) for content in contents])).astype(np.uint8)


@dataclass
class Pictures:
    """Opens data sets below some folders, each once.

    Attributes
    ----------
    folders : sequence of Path
        The data folders.
    """

    folders: Sequence[Path]
    _opened: dict[str, Stored] = field(default_factory=dict, repr=False)

    def classes(self, name: str) -> NDArray[np.int64]:
        """Return the class of every picture of a data set, int64 [N].

        Raises
        ------
        InputError
            No file of the data set is below the folders.
        """
        return self._stored(name).classes

    def read(self, name: str, places: NDArray[np.int64], channels: int, side: int) -> Pixels:
        """Return pictures of a data set, uint8 [n, channels, side, side], light on dark."""
        pixels = self._stored(name).pixels(places, channels, side)
        return 255 - pixels if DATA_SETS[name].inverted else pixels

    def _stored(self, name: str) -> Stored:
        if name not in self._opened:
            self._opened[name] = self._open(name, DATA_SETS[name])
        return self._opened[name]

    def _open(self, name: str, data_set: DataSet) -> Stored:
        if not data_set.pattern:
            return GreyPictures.shipped()
        paths = sorted(path for folder in self.folders for path in folder.rglob(data_set.pattern))
        if not paths:
            places = " and ".join(map(str, self.folders)) or "no data folder"
            raise InputError(f"{places} has no {data_set.pattern} ({name}): give its folder with --data-dir")
        return ZippedFiles(paths, data_set.class_names) if paths[0].suffix == ".zip" else GreyPictures.of_files(paths)


def fitted(images: NDArray[Any], channels: int, side: int) -> Pixels:
    """Return grey pictures [N, H, W] as [N, channels, side, side]: resized, and repeated over the channels."""
    if images.shape[1:] != (side, side):
        images = np.stack([np.asarray(Image.fromarray(one).resize((side, side))) for one in images])
    return np.repeat(images[:, None].astype(np.uint8), channels, axis=1)
