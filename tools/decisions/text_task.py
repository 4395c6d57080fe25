"""The task on texts: mails by their origin, against other lists, other kinds of text, and ids without sense."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import nn

from models.small_text import SmallText
from tools.decisions.mails import LENGTH, WORDS, IntArray, licences, mails, pieces, python_source, translations
from tools.decisions.material import Group, Material, Rows, parted
from tools.decisions.pictures import Pictures
from tools.decisions.task import Task

MOST = 500  # test rows of each unknown group
NEAR = {
    "exmh": "mails on exmh",
    "forteana": "forteana's mails",
    "filters": "mails on spam filters",
    "hard ham": "hard ham",
}
FAR: dict[str, Callable[[], Iterator[str]]] = {
    "Python source": python_source,
    "licence texts": licences,
    "other languages": translations,
}


@dataclass(frozen=True)
class TextTask(Task):
    """Mails.

    Attributes
    ----------
    known : tuple of str
        The origins that are told apart.
    sizes : tuple of int
        Known rows for training, fitting and testing.
    """

    known: tuple[str, ...]
    sizes: tuple[int, int, int]

    def model(self, material: Material) -> nn.Module:
        """Return a small transformer."""
        return SmallText(WORDS, LENGTH, classes=len(material.class_names))

    def draw(self, sources: Pictures, seed: int) -> Material:
        """Split the known origins, each mail once, and take everything else as unknown."""
        rng, origins = np.random.default_rng(seed), mails(sources.folders)
        inputs, first = np.unique(np.concatenate([origins[name] for name in self.known]), axis=0, return_index=True)
        classes = np.repeat(np.arange(len(self.known)), [len(origins[name]) for name in self.known])[first]
        parts = parted(np.arange(len(inputs)), self.sizes, rng)
        training, fit, test = (Rows(inputs[at], classes[at]) for at in parts)
        near = {title: Group("near", Rows.unknown(_some(origins[name], rng))) for name, title in NEAR.items()}
        far = {name: Group("far", Rows.unknown(pieces(texts(), MOST, rng))) for name, texts in FAR.items()}
        changed = {**_corrupted(test, rng), **_noise(test.inputs, rng)}
        return Material(self.known, training, fit, test, {**near, **far, **changed})


def _some(ids: IntArray, rng: np.random.Generator) -> IntArray:
    return ids[rng.permutation(len(ids))[:MOST]]


def _corrupted(test: Rows, rng: np.random.Generator) -> dict[str, Group]:
    """Keep only the first words, or put words of other mails in the place of half of them."""
    some = test[rng.permutation(len(test))[:MOST]]
    others, replaced = rng.permuted(some.inputs, axis=0), rng.random(some.inputs.shape) < 0.5
    changed = {
        "corrupted: first 12 words": some.inputs * (np.arange(LENGTH) < 12),
        "corrupted: half of the words": np.where(replaced, others, some.inputs),
    }
    return {name: Group("corruption", Rows(ids, some.classes)) for name, ids in changed.items()}


def _noise(known: IntArray, rng: np.random.Generator) -> dict[str, Group]:
    """Draw ids uniformly, by their frequency, or one for a whole text."""
    shape = (MOST, LENGTH)
    drawn = {
        "random ids": rng.integers(1, WORDS, shape),
        "random words": rng.choice(known[known > 0], shape),
        "one word": np.repeat(rng.integers(1, WORDS, (MOST, 1)), LENGTH, axis=1),
    }
    return {name: Group("noise", Rows.unknown(ids)) for name, ids in drawn.items()}
