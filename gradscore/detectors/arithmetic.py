"""What the detectors' formulas share. Each function takes arrays of NumPy, or traced ones, which become ONNX nodes.

z are logits [N, q], ŷ is the predicted label [N], p the softmax, and x any rows [N, D].
"""

from typing import Any

import numpy as np

from gradscore.detectors.traced import Traced

Values = Any  # an array of NumPy, or a Traced one
SMALLEST = 1e-12  # of a norm that something is divided by


def column(x: Values) -> Values:
    """Return values [N] as a column [N, 1]."""
    return x.column() if isinstance(x, Traced) else x[:, None]


def where(mask: Values, yes: Any, no: Any) -> Values:
    """Return `yes` where a mask is true, else `no`."""
    return mask.where(yes, no) if isinstance(mask, Traced) else np.where(mask, yes, no)


def is_label(label: Values, classes: int) -> Values:
    """Return the mask [N, q] that is true at the predicted label."""
    return np.equal(column(label), np.arange(classes))


def one_hot(label: Values, classes: int) -> Values:
    """Return 1 at the predicted label and 0 elsewhere, [N, q]."""
    mask = is_label(label, classes)
    return mask.as_double() if isinstance(mask, Traced) else mask.astype(np.float64)


def chosen(x: Values, places: Values) -> Values:
    """Return [N, k], the values of each row at its own places [N, k]."""
    return x.chosen(places) if isinstance(x, Traced) else np.take_along_axis(x, places, axis=1)


def at(x: Values, label: Values) -> Values:
    """Return the value of each row at its label, [N]."""
    return chosen(x, column(label)).sum(axis=1)


def rows_at(table: Any, places: Values) -> Values:
    """Return the rows of a table at these places."""
    return places.of(table) if isinstance(places, Traced) else table[places]


def largest(x: Values, count: int, *, ordered: bool = False) -> Values:
    """Return the places [N, count] of the largest values of each row; of equal ones the first.

    Nodes put them in falling order. NumPy does so only with `ordered`, because sorting takes most of the time.
    """
    if isinstance(x, Traced):
        return x.largest(count)
    x = np.where(np.isnan(x), -np.inf, x)
    last = x.shape[1] - count
    limit = np.partition(x, last, axis=1)[:, last, None]
    above, equal = x > limit, x == limit
    equal &= np.cumsum(equal, axis=1) <= count - above.sum(axis=1, keepdims=True)
    places = np.nonzero(above | equal)[1].reshape(len(x), count)
    return places if not ordered else chosen(places, np.argsort(-chosen(x, places), axis=1, kind="stable"))


def kth_largest(x: Values, count: int) -> Values:
    """Return the place [N] of the value of each row that is number `count` from the largest down."""
    if isinstance(x, Traced):
        return x.largest(count).pick(count - 1)
    last = x.shape[1] - count
    return np.argpartition(x, last, axis=1)[:, last]


def replaced(x: Values, places: Values, values: Values) -> Values:
    """Return a copy of x in which each row has other values [N, k] at its places [N, k]."""
    if isinstance(x, Traced):
        return x.replaced(places, values)
    copy = x.copy()
    np.put_along_axis(copy, places, values, axis=1)
    return copy


def norm(x: Values) -> Values:
    """Return the Euclidean norm of each row, [N]."""
    return np.sqrt((x * x).sum(axis=1))


def normalised(x: Values) -> Values:
    """Return each row over its Euclidean norm; a row of zeros stays."""
    return x / column(np.maximum(norm(x), SMALLEST))


def log_sum_exp(z: Values) -> Values:
    """Return log Σ exp z, [N]."""
    top = z.max(axis=1, keepdims=True)
    return np.log(np.exp(z - top).sum(axis=1)) + top.sum(axis=1)


def softmax(z: Values) -> Values:
    """Return p, [N, q]."""
    weights = np.exp(z - z.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def without_label(z: Values, label: Values, classes: int) -> Values:
    """Return the logits with −∞ at the predicted label."""
    return where(is_label(label, classes), -np.inf, z)


def residual(z: Values, label: Values, classes: int) -> Values:
    """Return 1 − p_ŷ without cancellation, [N]: sigmoid(log Σ exp of the other logits − z_ŷ)."""
    return 1.0 / (np.exp(at(z, label) - log_sum_exp(without_label(z, label, classes))) + 1.0)


def unit_seed(z: Values, label: Values, classes: int) -> Values:
    """Return u = softmax(the other logits) − onehot(ŷ). The seed p − onehot(ŷ) of back-propagation is (1 − p_ŷ)·u."""
    return softmax(without_label(z, label, classes)) - one_hot(label, classes)


def complement(z: Values, p: Values, label: Values, classes: int) -> Values:
    """Return 1 − p, [N, q], without cancellation at the predicted label."""
    return where(is_label(label, classes), column(residual(z, label, classes)), 1.0 - p)


def nearest(x: Values, centres: Any) -> Values:
    """Return the squared distance of each row to the nearest centre, [N]. Centres are float64 [C, D]."""
    squares = (x * x).sum(axis=1, keepdims=True) - x @ (2.0 * centres.T) + (centres * centres).sum(axis=1)
    return np.maximum(squares, 0.0).min(axis=1)
