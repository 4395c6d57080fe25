"""One repetition of the study: which pictures train, validate and test a CNN, and which unknown ones are fitted on.

Everything is drawn by the repetition's seed alone. No picture is in two parts: what a verdict is fitted on, be it of the
known concept or of an unknown one, is never tested on.
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
    """Pictures with their ids: `class/row` of the known concept, `concept#row` of an unknown one.

    Attributes
    ----------
    ids : [N], unique in the study
    images : uint8 [N, 1, 28, 28]
    labels : int64 [N], −1 for unknown concepts
    """

    ids: tuple[str, ...]
    images: Images
    labels: NDArray[np.int64]

    def first(self, count: int) -> "Part":
        """Return the first pictures."""
        return Part(self.ids[:count], self.images[:count], self.labels[:count])

    def after(self, count: int) -> "Part":
        """Return all but the first pictures."""
        return Part(self.ids[count:], self.images[count:], self.labels[count:])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of pictures, classes and ids."""
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes() + "\n".join(self.ids).encode()).hexdigest()


@dataclass(frozen=True)
class Repetition:
    """A permutation of the known pictures, cut in three, and one of each unknown concept's, cut in two.

    Attributes
    ----------
    training, validation, test : of the known concept
    unknown : of each unknown concept, to test on
    known_unknowns : others of each unknown concept, to fit on
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
            There are fewer pictures of the known concept than the splits need.
        """
        sizes = concepts.sizes
        if len(concepts.images) < sizes.known:
            raise InputError(f"{concepts.known} has {len(concepts.images)} pictures, the splits need {sizes.known}")
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
    """Draw pictures to fit and to test on, each once; of a small data set fewer to test on."""
    count = concepts.sizes.known_unknowns + concepts.sizes.unknown
    if name in concepts.noise:
        rows, images = np.arange(count), concepts.noise[name](count, rng)
    else:
        rows = rng.permutation(len(concepts.unknown[name]))[:count]
        images = concepts.unknown[name][rows]
    return Part(tuple(f"{name}#{row}" for row in rows.tolist()), images, np.full(len(rows), -1, dtype=np.int64))
