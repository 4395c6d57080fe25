"""Ways to make inputs that belong to no class, from noise or from known inputs; each is one small class in `KINDS`.

All work in the inputs' own space: pixels 0..255 for image models, the numbers that the model takes for others.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gradscore.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PATCHES = 4  # a side
BLUR = 1 / 8  # of the shorter side, the standard deviation of the blur


@dataclass(frozen=True)
class Space:
    """What inputs look like; every array broadcasts against one input.

    Attributes
    ----------
    shape : of one input
    low, high, mean, std : range and moments of its values
    known : float64 [N, *shape], empty where there are none
    labels : int64 [N], predicted classes of these; empty where not given
    image : whether the axes are channel, row, column
    """

    shape: tuple[int, ...]
    low: FloatArray
    high: FloatArray
    mean: FloatArray
    std: FloatArray
    known: FloatArray
    labels: IntArray
    image: bool

    def drawn(self, count: int, rng: np.random.Generator) -> FloatArray:
        """Return so many known inputs, each at most once while they last."""
        order = np.concatenate([rng.permutation(len(self.known)) for _ in range(-(-count // len(self.known)))])
        return np.asarray(self.known[order[:count]])


class Kind(ABC):
    """One way to make unknown concepts."""

    needs_known: ClassVar[bool] = True
    needs_image: ClassVar[bool] = False

    @abstractmethod
    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Return [count, *space.shape]."""


class UniformNoise(Kind):
    """Every value drawn evenly from the range of values."""

    needs_known = False

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Draw."""
        return rng.uniform(space.low, space.high, (count, *space.shape))


class NormalNoise(Kind):
    """Every value drawn from the normal distribution with the values' mean and deviation, clipped to their range."""

    needs_known = False

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Draw."""
        return np.clip(rng.normal(space.mean, space.std, (count, *space.shape)), space.low, space.high)


class PixelPermutation(Kind):
    """A known input with its pixels (of arrays: its numbers) in random order, which keeps their histogram."""

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Permute, each input by an order of its own, all channels of a pixel together."""
        flat = space.drawn(count, rng).reshape(count, space.shape[0] if space.image else 1, -1)
        return np.stack([one[:, rng.permutation(one.shape[1])] for one in flat])


class PatchShuffle(Kind):
    """A known image cut into 4×4 patches in random order, which keeps texture and loses shape."""

    needs_image = True

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Shuffle; rows and columns that do not divide evenly stay where they are."""
        out = space.drawn(count, rng).copy()
        high, wide = max(1, space.shape[1] // PATCHES), max(1, space.shape[2] // PATCHES)
        places = [(r * high, c * wide) for r in range(space.shape[1] // high) for c in range(space.shape[2] // wide)]
        for image in out:
            patches = [image[:, row : row + high, column : column + wide].copy() for row, column in places]
            for (row, column), source in zip(places, rng.permutation(len(places)), strict=True):
                image[:, row : row + high, column : column + wide] = patches[source]
        return out


class Blur(Kind):
    """A known image blurred until no more than its lightness is left: a Gaussian of an eighth of its shorter side."""

    needs_image = True

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Blur rows and columns; at the edge the part of the Gaussian inside counts."""
        width = BLUR * min(space.shape[1:])
        rows, columns = _gaussian(space.shape[1], width), _gaussian(space.shape[2], width)
        return np.asarray(rows @ space.drawn(count, rng) @ columns.T)


class Inversion(Kind):
    """A known input mirrored in the middle of its range: dark for light."""

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Mirror."""
        return space.low + space.high - space.drawn(count, rng)


class Mixup(Kind):
    """The mean of two known inputs of different predicted classes (after Zhang et al. 2018)."""

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Mix."""
        if len(space.labels) != len(space.known) or len(np.unique(space.labels)) < 2:
            raise InputError("mixup needs known inputs of at least two predicted classes: give more with --known")
        first = rng.integers(0, len(space.known), count)
        partners = [rng.choice(np.flatnonzero(space.labels != space.labels[one])) for one in first]
        return (space.known[first] + space.known[partners]) / 2


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "uniform": UniformNoise(),
        "normal": NormalNoise(),
        "permutation": PixelPermutation(),
        "patches": PatchShuffle(),
        "blur": Blur(),
        "inversion": Inversion(),
        "mixup": Mixup(),
    }
)


def _gaussian(extent: int, width: float) -> FloatArray:
    """Return [extent, extent] weights of a Gaussian around each place, rows of sum 1."""
    distance = np.arange(extent)[:, None] - np.arange(extent)
    weights = np.exp(-(distance**2) / (2 * width**2))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
