"""Splits of one repetition: the pictures for training, validation and testing, and the known unknowns.

The splits depend only on the repetition's seed. No picture is in two parts, so no verdict is tested on a picture that it
was fitted on.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gradscore import InputError
from tools.paper.concepts import Concepts, Images

MOST_FITTED = 10_000  # validation pictures that a verdict is fitted on


@dataclass(frozen=True)
class Part:
    """Pictures with their ids: `class/row` for the known concept, `concept#row` for an unknown one.

    Attributes
    ----------
    ids : tuple of str, [N]
        Ids, unique in the study.
    images : uint8 [N, 1, 28, 28]
        The pictures.
    labels : int64 [N]
        Their classes, −1 for unknown concepts.
    """

    ids: tuple[str, ...]
    images: Images
    labels: NDArray[np.int64]

    def first(self, count: int) -> "Part":
        """Return the first `count` pictures."""
        return Part(self.ids[:count], self.images[:count], self.labels[:count])

    def after(self, count: int) -> "Part":
        """Return all but the first `count` pictures."""
        return Part(self.ids[count:], self.images[count:], self.labels[count:])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of pictures, classes and ids."""
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes() + "\n".join(self.ids).encode()).hexdigest()


@dataclass(frozen=True)
class Repetition:
    """The parts of one repetition: three of the known concept, two of each unknown concept.

    Attributes
    ----------
    seed : int
        Seed of the splits.
    training, validation, test : Part
        Pictures of the known concept.
    unknown : mapping of str to Part
        Pictures of each unknown concept for testing.
    known_unknowns : mapping of str to Part
        Other pictures of each unknown concept for fitting.
    """

    seed: int
    training: Part
    validation: Part
    test: Part
    unknown: Mapping[str, Part]
    known_unknowns: Mapping[str, Part]

    @classmethod
    def draw(cls, concepts: Concepts, seed: int) -> "Repetition":
        """Draw the splits of one repetition.

        Raises
        ------
        InputError
            The known concept has fewer pictures than the splits need.
        """
        sizes = concepts.sizes
        if len(concepts.images) < sizes.known:
            raise InputError(f"{concepts.known} has {len(concepts.images)} pictures, but the splits need {sizes.known}")
        order = np.random.default_rng([seed, 0]).permutation(len(concepts.images))[: sizes.known]
        ids = tuple(f"{concepts.labels[row]}/{row}" for row in order.tolist())
        known = Part(ids, concepts.images[order], concepts.labels[order])
        rest = known.after(sizes.training)
        drawn = {
            name: _drawn(concepts, name, np.random.default_rng([seed, 1 + index]))
            for index, name in enumerate(concepts.unknown_names)
        }
        return cls(
            seed=seed,
            training=known.first(sizes.training),
            validation=rest.first(sizes.validation),
            test=rest.after(sizes.validation),
            unknown={name: part.after(sizes.known_unknowns) for name, part in drawn.items()},
            known_unknowns={name: part.first(sizes.known_unknowns) for name, part in drawn.items()},
        )

    @property
    def fitted(self) -> Part:
        """The known pictures that verdicts are fitted on."""
        return self.validation.first(MOST_FITTED)


def _drawn(concepts: Concepts, name: str, rng: np.random.Generator) -> Part:
    """Draw pictures for fitting and testing, each once. A small data set leaves fewer for testing."""
    count = concepts.sizes.known_unknowns + concepts.sizes.unknown
    if name in concepts.noise:
        rows, images = np.arange(count), concepts.noise[name](count, rng)
    else:
        rows = rng.permutation(len(concepts.unknown[name]))[:count]
        images = concepts.unknown[name][rows]
    return Part(tuple(f"{name}#{row}" for row in rows.tolist()), images, np.full(len(rows), -1, dtype=np.int64))
