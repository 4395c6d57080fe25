"""Exporters of fitted classifiers, scikit-learn's and gradscore's own, to ONNX nodes, one per class.

All nodes are in the default operator domain. An exporter takes the fitted binary classifier, the emitter and the name
of the standardised features [N, K]. It returns the name of P(correct) [N]. Trees need no `ai.onnx.ml` operators:
every tree is padded to a complete tree, so that one small matrix finds the leaf from the results of all comparisons.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from gradscore.errors import InputError
from gradscore.verdict.learning.verdict_nodes import VerdictNodes

FloatArray = npt.NDArray[np.float64]
Estimator = Any  # scikit-learn has no type stubs
Exporter = Callable[[Estimator, VerdictNodes, str], str]

DEEPEST_TREE = 8
OWN = ("PenalizedLogistic", "PlateauNetwork")
FLAT = np.array([-1], dtype=np.int64)


def emit_mean(members: Sequence[Estimator], emit: VerdictNodes, z: str) -> str:
    """Write classifiers of one class and the mean of their probabilities.

    Raises
    ------
    InputError
        The class has no exporter, or its exporter does not support these settings.
    """
    total, *others = [exporter_of(member)(member, emit, z) for member in members]
    for other in others:
        total = emit("Add", total, other)
    return emit("Div", total, np.float64(len(members))) if others else total


def exporter_of(estimator: Estimator) -> Exporter:
    """Return the exporter of an estimator's class.

    Raises
    ------
    InputError
        The class has no exporter. The message lists those that have one.
    """
    kind = type(estimator)
    if kind.__name__ not in EXPORTERS or not kind.__module__.startswith(("sklearn.", "gradscore.")):
        raise InputError(
            f"{kind.__module__}.{kind.__name__} cannot be saved as ONNX operators of the default domain; "
            f"use one of scikit-learn's: {', '.join(name for name in EXPORTERS if name not in OWN)}"
        )
    return EXPORTERS[kind.__name__]


def _linear(estimator: Estimator, emit: VerdictNodes, z: str) -> str:
    """σ(z·w + b)."""
    if getattr(estimator, "loss", "log_loss") != "log_loss":
        raise InputError(f"SGDClassifier gives probabilities only with loss='log_loss', not {estimator.loss!r}")
    weights = np.asarray(estimator.coef_, dtype=np.float64).reshape(-1)
    logit = emit("Add", emit("MatMul", z, weights), np.float64(np.ravel(estimator.intercept_)[0]))
    return emit("Sigmoid", logit)


def _network(estimator: Estimator, emit: VerdictNodes, z: str) -> str:
    """Dense layers with ReLU, then a sigmoid."""
    if estimator.activation != "relu":
        raise InputError(f"MLPClassifier can be saved with activation='relu' only, not {estimator.activation!r}")
    *hidden, last = zip(estimator.coefs_, estimator.intercepts_, strict=True)
    for weights, bias in hidden:
        z = emit("Relu", emit("Add", emit("MatMul", z, weights.astype(np.float64)), bias.astype(np.float64)))
    weights, bias = last
    logit = emit("Add", emit("MatMul", z, weights.astype(np.float64).reshape(-1)), np.float64(bias[0]))
    return emit("Sigmoid", logit)


def _boosted_trees(estimator: Estimator, emit: VerdictNodes, z: str) -> str:
    """σ(initial log odds + learning rate · Σ of the leaves reached)."""
    if estimator.init is not None or estimator.loss != "log_loss":
        raise InputError("GradientBoostingClassifier can be saved with init=None and loss='log_loss' only")
    trees = [row[0].tree_ for row in estimator.estimators_]
    depth = max(tree.max_depth for tree in trees)
    if depth > DEEPEST_TREE:
        raise InputError(f"trees of depth {depth} cannot be saved; set max_depth to {DEEPEST_TREE} or less")
    complete = [_complete(tree, depth) for tree in trees]
    features, thresholds, leaves = (np.stack(parts) for parts in zip(*complete, strict=True))
    prior = float(estimator.init_.class_prior_[1])
    inner, outer = 2**depth - 1, 2**depth
    # scikit-learn compares single-precision features with double-precision thresholds.
    single = emit("Cast", emit("Cast", z, to=TensorProto.FLOAT), to=TensorProto.DOUBLE)
    asked = emit("Gather", single, features.reshape(-1), axis=1)
    left = emit("Cast", emit("LessOrEqual", asked, thresholds.reshape(-1)), to=TensorProto.DOUBLE)
    grouped = emit("Reshape", left, np.array([-1, len(trees), inner], dtype=np.int64))
    turns, lefts = _paths(depth)
    reached = emit("Cast", emit("Equal", emit("MatMul", grouped, turns), lefts), to=TensorProto.DOUBLE)
    flat = emit("Reshape", reached, np.array([-1, len(trees) * outer], dtype=np.int64))
    raw = emit("MatMul", flat, estimator.learning_rate * leaves.reshape(-1))
    return emit("Sigmoid", emit("Add", raw, np.float64(np.log(prior / (1 - prior)))))


def _complete(tree: Estimator, depth: int) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
    """Pad a tree to full depth, in heap order.

    Below an early leaf, all padded splits lead to its value.
    """
    inner = 2**depth - 1
    features, thresholds = np.zeros(inner, dtype=np.int64), np.full(inner, np.inf)
    node = np.zeros(2 * inner + 1, dtype=np.int64)
    for place in range(inner):
        at = node[place]
        leaf = tree.children_left[at] < 0
        if not leaf:
            features[place], thresholds[place] = tree.feature[at], tree.threshold[at]
        node[2 * place + 1] = at if leaf else tree.children_left[at]
        node[2 * place + 2] = at if leaf else tree.children_right[at]
    return features, thresholds, tree.value[node[inner:], 0, 0]


def _paths(depth: int) -> tuple[FloatArray, FloatArray]:
    """Return the tables that find the leaf: it is where `comparisons @ turns == lefts`.

    A comparison is 1 for left and 0 for right.

    `turns` [inner, leaves] is +1 if the leaf is left of the node, −1 if it is right, and 0 if the node is not on its
    path. `lefts` [leaves] is the number of left turns on the path, the largest value that the product can reach.
    """
    inner, outer = 2**depth - 1, 2**depth
    turns = np.zeros((inner, outer))
    for leaf in range(outer):
        place = inner + leaf
        while place:
            parent = (place - 1) // 2
            turns[parent, leaf] = 1.0 if place == 2 * parent + 1 else -1.0
            place = parent
    return turns, (turns > 0).sum(axis=0).astype(np.float64)


EXPORTERS: Mapping[str, Exporter] = MappingProxyType(
    {
        "PenalizedLogistic": _linear,
        "LogisticRegression": _linear,
        "SGDClassifier": _linear,
        "LinearDiscriminantAnalysis": _linear,
        "MLPClassifier": _network,
        "PlateauNetwork": _network,
        "GradientBoostingClassifier": _boosted_trees,
    }
)
