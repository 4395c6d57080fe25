"""Tasks on pictures: known classes of one data set against its other classes, other data sets, corruptions and noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from gradscore.model.preprocessing import ImageOptions
from tools.decisions.distortions import CORRUPTIONS, NOISES
from tools.decisions.material import Family, Group, IntArray, Material, Rows, parted
from tools.decisions.pictures import DATA_SETS, Pictures
from tools.decisions.task import Task

MOST = 600  # test rows of an unknown data set
MOST_CHANGED = 300  # test rows of a corruption or of a noise


@dataclass(frozen=True)
class PictureTask(Task):
    """Pictures of one data set.

    Attributes
    ----------
    data_set : str
        The data set with the known classes, a key of `DATA_SETS`.
    channels, side : int
        Form of the classifier's input.
    sizes : tuple of int
        Known rows for training, fitting and testing.
    unknown : mapping of str to family
        Other data sets, "near" or "far".
    network : callable
        (channels, number of classes) -> the classifier.
    left_out : tuple of str
        Classes of the data set that the classifier does not know; they are near.
    """

    data_set: str
    channels: int
    side: int
    sizes: tuple[int, int, int]
    unknown: Mapping[str, Family]
    network: Callable[[int, int], nn.Module]
    left_out: tuple[str, ...] = ()
    preprocessing: ClassVar[ImageOptions] = ImageOptions(scale=1 / 255)

    def model(self, material: Material) -> nn.Module:
        """Return the network."""
        return self.network(self.channels, len(material.class_names))

    def draw(self, sources: Pictures, seed: int) -> Material:
        """Split the known classes, and draw from everything else."""
        rng, classes = np.random.default_rng(seed), sources.classes(self.data_set)
        names = DATA_SETS[self.data_set].class_names
        kept = [number for number, name in enumerate(names) if name not in self.left_out]
        is_known = np.isin(classes, kept)

        def rows(places: IntArray) -> Rows:
            pixels = sources.read(self.data_set, places, self.channels, self.side)
            return Rows(pixels, np.searchsorted(kept, classes[places]))

        training, fit, test = map(rows, parted(np.flatnonzero(is_known), self.sizes, rng))
        others = {name: Group(family, self._unknown(sources, name, rng)) for name, family in self.unknown.items()}
        if self.left_out:
            near = self._unknown(sources, self.data_set, rng, np.flatnonzero(~is_known))
            others[f"other classes of {self.data_set}"] = Group("near", near)
        return Material(tuple(names[one] for one in kept), training, fit, test, {**others, **_changed(test, rng)})

    def _unknown(self, sources: Pictures, name: str, rng: np.random.Generator, among: IntArray | None = None) -> Rows:
        places = np.arange(len(sources.classes(name))) if among is None else among
        return Rows.unknown(sources.read(name, rng.permutation(places)[:MOST], self.channels, self.side))


def _changed(test: Rows, rng: np.random.Generator) -> dict[str, Group]:
    """Return corruptions of test rows, which keep their classes, and noise."""
    groups: dict[str, Group] = {}
    for name, corrupt in CORRUPTIONS.items():
        some = test[rng.permutation(len(test))[:MOST_CHANGED]]
        groups[name] = Group("corruption", Rows(corrupt(some.inputs, rng), some.classes))
    for name, noise in NOISES.items():
        groups[name] = Group("noise", Rows.unknown(noise(test.inputs[:MOST_CHANGED], rng)))
    return groups
