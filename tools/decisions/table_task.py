"""The task on a table: scikit-learn's handwritten digits as rows of 64 numbers, eight classes against the other two."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from models.mlp import MLP
from tools.decisions.material import Group, Material, Rows, parted
from tools.decisions.pictures import Pictures
from tools.decisions.task import Task

LEFT_OUT = (8, 9)
LARGEST = 16  # of the numbers as they come; divided by it, all are in 0..1
NOISE = 0.25  # standard deviation of the noise that is added
LOST = 0.25  # fraction of the columns that are lost

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class TableTask(Task):
    """Rows of numbers.

    Attributes
    ----------
    sizes : tuple of int
        Known rows for training, fitting and testing.
    """

    sizes: tuple[int, int, int]

    def model(self, material: Material) -> nn.Module:
        """Return a multilayer perceptron."""
        return MLP(material.training.inputs.shape[1], 64, len(material.class_names))

    def draw(self, sources: Pictures, seed: int) -> Material:  # noqa: ARG002 - scikit-learn ships the data
        """Split the known classes, leave the others out, and make what is strange in a table."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        inputs, classes = (digits.data / LARGEST).astype(np.float32), digits.target.astype(np.int64)
        rng, known = np.random.default_rng(seed), np.flatnonzero(~np.isin(classes, LEFT_OUT))
        training, fit, test = (Rows(inputs[at], classes[at]) for at in parted(known, self.sizes, rng))
        near = Rows.unknown(inputs[np.isin(classes, LEFT_OUT)])
        others = {"digits 8 and 9": Group("near", near), **_far(test.inputs, rng), **_corrupted(test, rng)}
        names = tuple(str(one) for one in range(10) if one not in LEFT_OUT)
        return Material(names, training, fit, test, {**others, **_noise(test.inputs, rng)})


def _far(known: Numbers, rng: np.random.Generator) -> dict[str, Group]:
    """Change the meaning of all columns: their order, their direction, their order as in a transposed picture."""
    side = int(np.sqrt(known.shape[1]))
    changed = {
        "columns in another order": known[:, rng.permutation(known.shape[1])],
        "inverted numbers": 1 - known,
        "transposed pictures": known.reshape(-1, side, side).transpose(0, 2, 1).reshape(known.shape),
    }
    return {name: Group("far", Rows.unknown(np.ascontiguousarray(one))) for name, one in changed.items()}


def _corrupted(test: Rows, rng: np.random.Generator) -> dict[str, Group]:
    """Add noise, or lose a quarter of the columns, a different one in every row."""
    noisy = test.inputs + rng.normal(0, NOISE, test.inputs.shape)
    kept = rng.random(test.inputs.shape) >= LOST
    changed = {"corrupted: noise": np.clip(noisy, 0, 1), "corrupted: lost columns": test.inputs * kept}
    return {name: Group("corruption", Rows(one.astype(np.float32), test.classes)) for name, one in changed.items()}


def _noise(known: Numbers, rng: np.random.Generator) -> dict[str, Group]:
    """Draw numbers that have nothing to do with one another."""
    shape, means, spread = known.shape, known.mean(axis=0), known.std(axis=0)
    drawn = {
        "uniform noise": rng.uniform(0, 1, shape),
        "normal noise": np.clip(rng.normal(means, spread, shape), 0, 1),
        "sparse noise": rng.uniform(0, 1, shape) * (rng.random(shape) < 0.2),
    }
    return {name: Group("noise", Rows.unknown(one.astype(np.float32))) for name, one in drawn.items()}
