"""Kinds of unknown inputs, made from noise or from known inputs.

Each kind is a small class in `KINDS`. All kinds work in the space of the inputs: pixels 0..255 for image models, and
the model's numbers for others.
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

PATCHES = 4  # patches per side
BLUR = 1 / 8  # standard deviation of the blur, as a fraction of the shorter side


@dataclass(frozen=True)
class Space:
    """The space of the inputs.

    Attributes
    ----------
    shape : tuple of int
        Shape of one input.
    low, high, mean, std : float64 arrays
        Range and moments of the values. Each broadcasts against one input.
    known : float64 [N, *shape]
        Known inputs, may be empty.
    labels : int64 [N]
        Predicted classes of the known inputs, may be empty.
    image : bool
        Whether the axes are channel, row and column.
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
        """Return `count` known inputs in random order. None is repeated before all have been used."""
        order = np.concatenate([rng.permutation(len(self.known)) for _ in range(-(-count // len(self.known)))])
        return np.asarray(self.known[order[:count]])


class Kind(ABC):
    """One kind of unknown input."""

    needs_known: ClassVar[bool] = True
    needs_image: ClassVar[bool] = False

    @abstractmethod
    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Return `count` inputs, float64 [count, *space.shape]."""


class UniformNoise(Kind):
    """Uniform noise: every value is drawn uniformly from the range of values."""

    needs_known = False

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Draw the noise."""
        return rng.uniform(space.low, space.high, (count, *space.shape))


class NormalNoise(Kind):
    """Normal noise with the mean and standard deviation of the values, clipped to their range."""

    needs_known = False

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Draw the noise."""
        return np.clip(rng.normal(space.mean, space.std, (count, *space.shape)), space.low, space.high)


class PixelPermutation(Kind):
    """A known input with its pixels, or numbers, in random order, which keeps their histogram."""

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Permute each input by a different order. All channels of a pixel move together."""
        flat = space.drawn(count, rng).reshape(count, space.shape[0] if space.image else 1, -1)
        return np.stack([one[:, rng.permutation(one.shape[1])] for one in flat])


class PatchShuffle(Kind):
    """A known image cut into 4×4 patches in random order, which keeps texture but not shape."""

    needs_image = True

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Shuffle the patches. Rows and columns left over by the division stay in place."""
        out = space.drawn(count, rng).copy()
        high, wide = max(1, space.shape[1] // PATCHES), max(1, space.shape[2] // PATCHES)
        places = [(r * high, c * wide) for r in range(space.shape[1] // high) for c in range(space.shape[2] // wide)]
        for image in out:
            patches = [image[:, row : row + high, column : column + wide].copy() for row, column in places]
            for (row, column), source in zip(places, rng.permutation(len(places)), strict=True):
                image[:, row : row + high, column : column + wide] = patches[source]
        return out


class Blur(Kind):
    """A known image, blurred until little but its lightness is left.

    The Gaussian's standard deviation is an eighth of the image's shorter side.
    """

    needs_image = True

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Blur rows and columns. At the edge, the Gaussian is cut and normalised."""
        width = BLUR * min(space.shape[1:])
        rows, columns = _gaussian(space.shape[1], width), _gaussian(space.shape[2], width)
        return np.asarray(rows @ space.drawn(count, rng) @ columns.T)


class Inversion(Kind):
    """A known input with inverted values: dark becomes light."""

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Subtract the inputs from the sum of the range's ends."""
        return space.low + space.high - space.drawn(count, rng)


class Mixup(Kind):
    """The mean of two known inputs of different predicted classes (after Zhang et al. 2018)."""

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Draw pairs and return their means."""
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
    """Return weights [extent, extent] of a Gaussian around each place. Each row sums to 1."""
    distance = np.arange(extent)[:, None] - np.arange(extent)
    weights = np.exp(-(distance**2) / (2 * width**2))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
