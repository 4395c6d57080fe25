"""Kinds of unknown inputs, made from noise or from known inputs.

Each kind is a small class in `KINDS`. All kinds work in the space of the inputs: pixels 0..255 for image models, token ids
for models that take integers, and the model's numbers for others.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from gradscore.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

Takes = Literal["pixels", "numbers", "ids"]

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
    takes : str
        "pixels", with the axes channel, row and column; "numbers"; or "ids" of tokens.
    """

    shape: tuple[int, ...]
    low: FloatArray
    high: FloatArray
    mean: FloatArray
    std: FloatArray
    known: FloatArray
    labels: IntArray
    takes: Takes

    def drawn(self, count: int, rng: np.random.Generator) -> FloatArray:
        """Return `count` known inputs in random order. None is repeated before all have been used."""
        order = np.concatenate([rng.permutation(len(self.known)) for _ in range(-(-count // len(self.known)))])
        return np.asarray(self.known[order[:count]])

    def pairs(self, kind: str, count: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return `count` pairs of known inputs of different predicted classes."""
        if len(self.labels) != len(self.known) or len(np.unique(self.labels)) < 2:
            raise InputError(f"{kind} needs known inputs of at least two predicted classes: give more with --known")
        first = rng.integers(0, len(self.known), count)
        partners = [rng.choice(np.flatnonzero(self.labels != self.labels[one])) for one in first]
        return self.known[first], self.known[partners]

    @property
    def marks(self) -> BoolArray:
        """The places that hold the same id in all known inputs, such as a mark at the start, bool [*shape]."""
        return np.asarray((self.known == self.known[0]).all(axis=0))

    def words(self, ids: FloatArray) -> IntArray:
        """Return the places of an input's words: neither marks, nor a run of one id at the end, which fills it up."""
        others = np.flatnonzero(ids != ids[-1])
        end = others[-1] + 1 if len(others) and others[-1] + 2 < len(ids) else len(ids)
        return np.flatnonzero(~self.marks[:end])


class Kind(ABC):
    """One kind of unknown input."""

    needs_known: ClassVar[bool] = True
    suits: ClassVar[tuple[Takes, ...]] = ("pixels", "numbers")

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
        flat = space.drawn(count, rng).reshape(count, space.shape[0] if space.takes == "pixels" else 1, -1)
        return np.stack([one[:, rng.permutation(one.shape[1])] for one in flat])


class PatchShuffle(Kind):
    """A known image cut into 4×4 patches in random order, which keeps texture but not shape."""

    suits = ("pixels",)

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

    suits = ("pixels",)

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
        first, second = space.pairs("mixup", count, rng)
        return (first + second) / 2


class Marginals(Kind):
    """Every number drawn by itself from the known inputs, which keeps each column but not what connects them."""

    suits = ("numbers",)

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Draw each column's numbers from another row each."""
        columns = space.known.reshape(len(space.known), -1)
        rows = rng.integers(0, len(columns), (count, columns.shape[1]))
        return columns[rows, np.arange(columns.shape[1])].reshape(count, *space.shape)


class RandomTokens(Kind):
    """Token ids drawn uniformly from those that occur in the known inputs."""

    suits = ("ids",)

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Draw ids, and put them where a known input has words."""
        out = space.drawn(count, rng).copy()
        vocabulary = np.unique(space.known[:, ~space.marks])
        for row in out:
            places = space.words(row)
            row[places] = rng.choice(vocabulary, len(places))
        return out


class TokenShuffle(Kind):
    """The token ids of a known input in random order, which keeps its words but not its sentences."""

    suits = ("ids",)

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Shuffle each input by a different order."""
        out = space.drawn(count, rng).copy()
        for row in out:
            places = space.words(row)
            row[places] = row[rng.permutation(places)]
        return out


class TokenSplice(Kind):
    """The first half of one known text and the second half of another of a different predicted class."""

    suits = ("ids",)

    def make(self, space: Space, count: int, rng: np.random.Generator) -> FloatArray:
        """Draw pairs, and halve the words of the first."""
        out, second = space.pairs("splice", count, rng)
        for row, other in zip(out, second, strict=True):
            half = space.words(row)[len(space.words(row)) // 2 :]
            row[half] = other[half]
        return out


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "uniform": UniformNoise(),
        "normal": NormalNoise(),
        "permutation": PixelPermutation(),
        "patches": PatchShuffle(),
        "blur": Blur(),
        "inversion": Inversion(),
        "mixup": Mixup(),
        "marginals": Marginals(),
        "tokens": RandomTokens(),
        "shuffle": TokenShuffle(),
        "splice": TokenSplice(),
    }
)


def _gaussian(extent: int, width: float) -> FloatArray:
    """Return weights [extent, extent] of a Gaussian around each place. Each row sums to 1."""
    distance = np.arange(extent)[:, None] - np.arange(extent)
    weights = np.exp(-(distance**2) / (2 * width**2))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
