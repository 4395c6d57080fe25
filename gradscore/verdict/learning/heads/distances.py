"""Distances to what is usual for right predictions: Mahalanobis distances of groups of columns, and nearest neighbours.

Both give logarithms of distances, larger meaning more unusual.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradscore.verdict.learning.transforms import LARGEST
from gradscore.verdict.learning.verdict_nodes import VerdictNodes

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FEWEST_PER_CLASS = 10  # rows that give a class a mean of its own
MOST_CLASSES = 100  # the least frequent ones share one mean
LARGEST_BANK = 1000  # vectors
NEAREST = 10  # which neighbour counts
LEAST_SQUARE = 1e-12
LEAST_VARIANCE = 1e-9  # of the mean variance; keeps constant directions finite


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Mahalanobis distances of L groups of columns to the nearest class mean, one covariance for all classes of a group.

    Lee et al. 2018, "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks", equation
    2, with shrunk covariances (see `shrunk`).

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
    def fit(cls, z: FloatArray, groups: Sequence[IntArray], members: FloatArray) -> "Gaussians":
        """Learn means and covariances of groups of columns of z [N, D]; `members` [N, C] is 1 in a row's own class."""
        widest = max(len(group) for group in groups)
        columns = np.concatenate([np.r_[group, np.zeros(widest - len(group), np.int64)] for group in groups])
        real = np.stack([np.arange(widest) < len(group) for group in groups]).astype(np.float64)[:, None]
        x = z[:, columns].reshape(len(z), len(groups), widest).transpose(1, 0, 2) * real
        means = members.T @ x / members.sum(axis=0)[:, None]
        sizes = np.array([len(group) for group in groups])
        whitening = np.stack(
            [_whitening(part, size) for part, size in zip(shrunk(x - members @ means, sizes), sizes, strict=True)]
        )
        return cls(columns, whitening, means @ whitening)

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return the logarithms of the distances [N, L]."""
        inside = np.clip(z[:, self.columns], -LARGEST, LARGEST)
        groups = inside.reshape(len(z), len(self.means), -1).transpose(1, 0, 2)
        white = groups @ self.whitening
        own = (white**2).sum(axis=2, keepdims=True) + (self.means**2).sum(axis=2)[:, None]
        squares = own - 2 * white @ self.means.transpose(0, 2, 1)
        return np.asarray(np.log(np.maximum(squares.min(axis=2), LEAST_SQUARE)).T / 2)

    def emit(self, emit: VerdictNodes, z: str) -> str:
        """Write the same arithmetic as ONNX nodes."""
        count, _, width = self.means.shape
        inside = emit.clipped(emit("Gather", z, self.columns, axis=1), LARGEST)
        groups = emit("Transpose", emit("Reshape", inside, np.array([-1, count, width])), perm=[1, 0, 2])
        white = emit("MatMul", groups, self.whitening)
        own = emit("ReduceSum", emit("Mul", white, white), np.array([2]), keepdims=1)
        cross = emit("MatMul", white, -2 * self.means.transpose(0, 2, 1))
        squares = emit("Add", emit("Add", own, (self.means**2).sum(axis=2)[:, None]), cross)
        nearest = emit("Max", emit("ReduceMin", squares, axes=[2], keepdims=0), np.float64(LEAST_SQUARE))
        return emit("Transpose", emit("Mul", emit("Log", nearest), np.float64(0.5)), perm=[1, 0])


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Distance to the k-th nearest of a bank of vectors, all of length 1.

    Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors".

    Attributes
    ----------
    bank : float64 [M, K]
        The vectors.
    nearest : int
        Which neighbour counts.
    """

    bank: FloatArray
    nearest: int

    @classmethod
    def fit(cls, unit: FloatArray, *, seed: int = 0) -> "Neighbours":
        """Keep up to 1,000 of the vectors [N, K], drawn with the seed."""
        drawn = np.random.default_rng(seed).permutation(len(unit))[:LARGEST_BANK]
        return cls(unit[np.sort(drawn)], min(NEAREST, len(drawn)))

    def __call__(self, unit: FloatArray) -> FloatArray:
        """Return the logarithms of the distances [N, 1]."""
        squares = 2 - 2 * unit @ self.bank.T
        kth = np.partition(squares, self.nearest - 1, axis=1)[:, self.nearest - 1 : self.nearest]
        return np.asarray(np.log(np.maximum(kth, LEAST_SQUARE)) / 2)

    def emit(self, emit: VerdictNodes, unit: str) -> str:
        """Write the same arithmetic as ONNX nodes."""
        similar = emit.first("TopK", 2, emit("MatMul", unit, self.bank.T), np.array([self.nearest]), axis=1)
        last = emit("Gather", similar, np.array([self.nearest - 1]), axis=1)
        square = emit("Sub", np.float64(2), emit("Mul", last, np.float64(2)))
        return emit("Mul", emit("Log", emit("Max", square, np.float64(LEAST_SQUARE))), np.float64(0.5))


def class_members(label: IntArray) -> FloatArray:
    """Return 1 where a row belongs to a class [N, C]. Classes of few rows, and rows without a class, share the first one."""
    names, counts = np.unique(label, return_counts=True)
    order = np.argsort(-counts, kind="stable")[: MOST_CLASSES - 1]
    frequent = [int(names[i]) for i in order if names[i] >= 0 and counts[i] >= FEWEST_PER_CLASS]
    members = np.stack([~np.isin(label, frequent), *(label == name for name in frequent)], axis=1)
    return members[:, members.any(axis=0)].astype(np.float64)


def shrunk(x: FloatArray, sizes: IntArray) -> FloatArray:
    """Return the covariances [L, K, K] of centred groups x [L, N, K], shrunk towards multiples of the unit matrix.

    Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices", theorem 3.4. Of each
    group, only the first `sizes` [L] columns are real, and the others are 0.
    """
    rows = x.shape[1]
    covariance = x.transpose(0, 2, 1) @ x / rows
    level = np.trace(covariance, axis1=1, axis2=2) / sizes
    distance = (covariance**2).sum(axis=(1, 2)) - sizes * level**2
    squares = x**2
    fourth = ((squares.sum(axis=2)) ** 2).sum(axis=1) / rows
    error = np.minimum((fourth - (covariance**2).sum(axis=(1, 2))) / rows, distance)
    share = np.where(distance > 0, error / np.where(distance > 0, distance, 1.0), 0.0)[:, None, None]
    target = np.eye(x.shape[2]) * level[:, None, None]
    return np.asarray((1 - share) * covariance + share * target)


def _whitening(covariance: FloatArray, size: int) -> FloatArray:
    """Return the matrix [K, K] that whitens the first `size` columns, and makes the others 0."""
    values, vectors = np.linalg.eigh(covariance[:size, :size])
    out = np.zeros_like(covariance)
    least = LEAST_VARIANCE * max(float(values.mean()), LEAST_VARIANCE)
    out[:size, :size] = vectors / np.sqrt(np.maximum(values, least))
    return out
