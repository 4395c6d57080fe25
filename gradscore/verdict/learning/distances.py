"""Distances to what is usual for right predictions: Mahalanobis distances of groups of columns, and nearest neighbours.

Both are fitted on right predictions of known inputs. They give logarithms of distances, larger meaning more unusual.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradscore.verdict.learning.verdict_nodes import VerdictNodes

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FEWEST_PER_CLASS = 10  # rows that give a class a mean of its own
MOST_CLASSES = 100  # further classes share one mean: the least frequent ones
LARGEST_BANK = 1000  # vectors
NEAREST = 10  # which neighbour counts
LEAST_SQUARE = 1e-12
LEAST_VARIANCE = 1e-9  # of the mean variance; keeps constant directions finite


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Mahalanobis distances of L groups of columns to the nearest class mean, one covariance for all classes of a group.

    Lee et al. 2018, "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks", equation
    2, with the covariance shrunk as in Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
    matrices".

    Attributes
    ----------
    columns : int64 [L·K]
        Indices into the columns of z. Smaller groups are padded with columns of weight 0.
    whitening : float64 [L, K, K]
        Maps each group to coordinates in which its covariance is the unit matrix.
    means : float64 [L, C, K]
        Class means in these coordinates.
    """

    columns: IntArray
    whitening: FloatArray
    means: FloatArray

    @classmethod
    def fit(cls, z: FloatArray, groups: Sequence[IntArray], label: IntArray) -> "Gaussians":
        """Learn means and covariances of groups of columns of z [N, D], by predicted class [N].

        The distance of an empty group is the same for every row.
        """
        widest = max(len(group) for group in groups)
        member = _class_of(label)
        parts = [_gaussian(z[:, group], member) for group in groups]
        whitening = np.stack([_padded(part, (widest, widest)) for part, _ in parts])
        means = np.stack([_padded(part, (part.shape[0], widest)) for _, part in parts])
        padded = [np.r_[group, np.zeros(widest - len(group), np.int64)] for group in groups]
        return cls(np.concatenate(padded), whitening, means)

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return the logarithms of the distances [N, L]."""
        groups = z[:, self.columns].reshape(len(z), len(self.means), -1).transpose(1, 0, 2)
        white = groups @ self.whitening
        own = (white**2).sum(axis=2, keepdims=True) + (self.means**2).sum(axis=2)[:, None]
        squares = own - 2 * white @ self.means.transpose(0, 2, 1)
        return np.asarray(np.log(np.maximum(squares.min(axis=2), LEAST_SQUARE)).T / 2)

    def emit(self, emit: VerdictNodes, z: str) -> str:
        """Write the same arithmetic as ONNX nodes."""
        count, _, width = self.means.shape
        chosen = emit("Gather", z, self.columns, axis=1)
        groups = emit("Transpose", emit("Reshape", chosen, np.array([-1, count, width])), perm=[1, 0, 2])
        white = emit("MatMul", groups, self.whitening)
        own = emit("ReduceSum", emit("Mul", white, white), np.array([2]), keepdims=1)
        cross = emit("MatMul", white, -2 * self.means.transpose(0, 2, 1))
        squares = emit("Add", emit("Add", own, (self.means**2).sum(axis=2)[:, None]), cross)
        nearest = emit("Max", emit("ReduceMin", squares, axes=[2], keepdims=0), np.float64(LEAST_SQUARE))
        return emit("Transpose", emit("Mul", emit("Log", nearest), np.float64(0.5)), perm=[1, 0])


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Distance to the k-th nearest of a bank of vectors, all scaled to length 1.

    Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors".

    Attributes
    ----------
    columns : int64 [K]
        Indices into the features.
    bank : float64 [M, K]
        Vectors of length 1.
    nearest : int
        Which neighbour counts.
    """

    columns: IntArray
    bank: FloatArray
    nearest: int

    @classmethod
    def fit(cls, features: FloatArray, columns: IntArray, *, seed: int = 0) -> "Neighbours":
        """Keep up to 1,000 vectors of features [N, F], drawn with the seed."""
        drawn = np.random.default_rng(seed).permutation(len(features))[:LARGEST_BANK]
        return cls(columns, _unit(features[np.sort(drawn)][:, columns]), min(NEAREST, len(drawn)))

    def __call__(self, features: FloatArray) -> FloatArray:
        """Return the logarithms of the distances [N, 1]."""
        squares = 2 - 2 * _unit(features[:, self.columns]) @ self.bank.T
        kth = np.partition(squares, self.nearest - 1, axis=1)[:, self.nearest - 1 : self.nearest]
        return np.asarray(np.log(np.maximum(kth, LEAST_SQUARE)) / 2)

    def emit(self, emit: VerdictNodes, features: str) -> str:
        """Write the same arithmetic as ONNX nodes."""
        vectors = emit("Gather", features, self.columns, axis=1)
        length = emit("Sqrt", emit("ReduceSum", emit("Mul", vectors, vectors), np.array([1]), keepdims=1))
        unit = emit("Div", vectors, emit("Max", length, np.float64(LEAST_SQUARE)))
        similar = emit.first("TopK", 2, emit("MatMul", unit, self.bank.T), np.array([self.nearest]), axis=1)
        last = emit("Gather", similar, np.array([self.nearest - 1]), axis=1)
        square = emit("Sub", np.float64(2), emit("Mul", last, np.float64(2)))
        return emit("Mul", emit("Log", emit("Max", square, np.float64(LEAST_SQUARE))), np.float64(0.5))


def _class_of(label: IntArray) -> IntArray:
    """Return a number per row: classes with enough rows count from 1 on; all others are 0."""
    names, counts = np.unique(label, return_counts=True)
    order = names[np.argsort(-counts, kind="stable")][:MOST_CLASSES]
    frequent = [name for name in order.tolist() if name >= 0 and (label == name).sum() >= FEWEST_PER_CLASS]
    member = np.zeros(len(label), dtype=np.int64)
    for number, name in enumerate(frequent):
        member[label == name] = number + 1
    return member


def _gaussian(x: FloatArray, member: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return the whitening matrix [K, K] of the rows [N, K], and their class means in its coordinates."""
    from sklearn.covariance import ledoit_wolf  # noqa: PLC0415 - loaded for fitting only

    present, place = np.unique(member, return_inverse=True)
    means = np.stack([x[place == number].mean(axis=0) for number in range(len(present))])
    if not x.shape[1]:
        return np.empty((0, 0)), means
    covariance, _ = ledoit_wolf(x - means[place], assume_centered=True)
    values, vectors = np.linalg.eigh(np.asarray(covariance, dtype=np.float64))
    whitening = vectors / np.sqrt(np.maximum(values, max(LEAST_VARIANCE * values.mean(), np.finfo(np.float64).tiny)))
    return np.asarray(whitening), means @ whitening


def _padded(array: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    out = np.zeros(shape)
    out[tuple(slice(extent) for extent in array.shape)] = array
    return out


def _unit(x: FloatArray) -> FloatArray:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), LEAST_SQUARE))
