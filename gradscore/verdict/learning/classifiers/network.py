"""The paper's neural meta-classifier, with the paper's training schedule, which scikit-learn lacks.

The network has one hidden layer of ReLU units and a softmax over incorrect and correct. Training is stochastic gradient
descent with momentum and weight decay on all parameters, as in PyTorch's SGD. The learning rate falls tenfold if the
mean training loss of an epoch has not improved by one part in 10,000 for `patience` epochs, as in PyTorch's
ReduceLROnPlateau. Training ends when the rate would fall below `last_rate`.
"""

from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from gradscore.errors import InputError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

BATCH = 128
MOST_EPOCHS = 500
LEAST_IMPROVEMENT = 1e-4
RATE_FACTOR = 0.1


@dataclass
class PlateauNetwork:
    """The paper's network, with scikit-learn's interface.

    Attributes
    ----------
    hidden : int
        Units of the hidden layer.
    momentum, weight_decay : float
        Parameters of gradient descent.
    first_rate, last_rate : float
        First and lowest learning rate.
    patience : int
        Epochs without improvement before the rate falls.
    seed : int
        Seed of the initial weights and of the order of rows.
    weights : tuple of float64 arrays
        Weights and biases of both layers, empty before `fit`.
    """

    hidden: int = 15
    momentum: float = 0.9
    weight_decay: float = 1e-3
    first_rate: float = 0.1
    last_rate: float = 0.001
    patience: int = 10
    seed: int = 0
    weights: tuple[FloatArray, ...] = field(default=(), repr=False)

    def get_params(self) -> dict[str, Any]:
        """Return the settings, without the weights."""
        return {name: value for name, value in asdict(self).items() if name != "weights"}

    def fit(self, z: FloatArray, correct: BoolArray) -> "PlateauNetwork":
        """Train on standardised features [N, K] and outcomes [N].

        Raises
        ------
        InputError
            The loss becomes infinite or NaN.
        """
        z = np.ascontiguousarray(z)  # a batch reads whole rows
        rng = np.random.default_rng(self.seed)
        weights = _initial((z.shape[1], self.hidden, 2), rng)
        velocity = [np.zeros_like(weight) for weight in weights]
        targets = np.stack([~correct, correct], axis=1).astype(np.float64)
        schedule = _Plateau(self.first_rate, self.last_rate, self.patience)
        for _ in range(MOST_EPOCHS):
            loss = 0.0
            for rows in _batches(len(z), rng):
                cross_entropy, gradients = loss_and_gradients(weights, z[rows], targets[rows])
                loss += cross_entropy * len(rows) / len(z)
                self._step(weights, velocity, gradients, schedule.rate)
            if not np.isfinite(loss):
                raise InputError(
                    "the network diverged: the features have extreme values; use --method lasso or boosting"
                )
            if not schedule.goes_on(loss):
                break
        self.weights = tuple(weights)
        return self

    def predict_proba(self, z: FloatArray) -> FloatArray:
        """Return the probabilities of incorrect and correct, [N, 2]."""
        return _softmax(_forward(self.weights, z)[1])

    @property
    def coefs_(self) -> list[FloatArray]:
        """Weights in the form of MLPClassifier. Only the difference of the two softmax outputs matters."""
        return [self.weights[0], self.weights[2][:, 1:] - self.weights[2][:, :1]]

    @property
    def intercepts_(self) -> list[FloatArray]:
        """Biases in the form of MLPClassifier."""
        return [self.weights[1], self.weights[3][1:] - self.weights[3][:1]]

    activation = "relu"

    def _step(
        self, weights: list[FloatArray], velocity: list[FloatArray], gradients: list[FloatArray], rate: float
    ) -> None:
        for index, gradient in enumerate(gradients):
            velocity[index] *= self.momentum
            velocity[index] += gradient
            velocity[index] += self.weight_decay * weights[index]
            weights[index] -= rate * velocity[index]


@dataclass
class _Plateau:
    """The learning rate, which falls when the loss stops falling."""

    rate: float
    last_rate: float
    patience: int
    best: float = np.inf
    bad: int = 0

    def goes_on(self, loss: float) -> bool:
        """Take the loss of an epoch, and return False after a plateau at the last rate."""
        improved = loss < self.best * (1 - LEAST_IMPROVEMENT)
        self.best, self.bad = (loss, 0) if improved else (self.best, self.bad + 1)
        if self.bad <= self.patience:
            return True
        self.rate, self.bad = self.rate * RATE_FACTOR, 0
        return self.rate >= self.last_rate * (1 - 1e-9)


def loss_and_gradients(weights: list[FloatArray], z: FloatArray, targets: FloatArray) -> tuple[float, list[FloatArray]]:
    """Return the mean cross-entropy of rows [N, K] with one-hot targets [N, 2], and its gradients.

    A softmax over two logits is a sigmoid of their difference, so that one number a row goes back.
    """
    from scipy.special import expit  # noqa: PLC0415 - loaded for fitting only

    hidden, logits = _forward(weights, z)
    margin, outcome = logits[:, 1] - logits[:, 0], targets[:, 1]
    loss = float(np.logaddexp(0.0, (1 - 2 * outcome) * margin).mean())
    error = (expit(margin) - outcome) / len(z)
    back = np.outer(error, weights[2][:, 1] - weights[2][:, 0]) * (hidden > 0)
    pull, total = hidden.T @ error, error.sum()
    return loss, [z.T @ back, back.sum(axis=0), np.stack([-pull, pull], axis=1), np.array([-total, total])]


def _forward(weights: tuple[FloatArray, ...] | list[FloatArray], z: FloatArray) -> tuple[FloatArray, FloatArray]:
    hidden = np.maximum(z @ weights[0] + weights[1], 0.0)
    return hidden, hidden @ weights[2] + weights[3]


def _softmax(logits: FloatArray) -> FloatArray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _initial(sizes: tuple[int, int, int], rng: np.random.Generator) -> list[FloatArray]:
    """Draw weights and biases uniformly from ±1/√fan-in, as PyTorch's Linear does."""
    drawn = []
    for fan_in, fan_out in pairwise(sizes):
        bound = 1 / np.sqrt(fan_in)
        drawn += [rng.uniform(-bound, bound, (fan_in, fan_out)), rng.uniform(-bound, bound, fan_out)]
    return drawn


def _batches(count: int, rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    order = rng.permutation(count)
    return [order[start : start + BATCH] for start in range(0, count, BATCH)]
