"""Permutation importance of a verdict's heads, features, layers and statistics.

Permuting columns among the rows breaks their relation to the outcome, but keeps their distribution. The loss of AUROC
shows how much the verdict depends on them (Breiman 2001, "Random Forests", section 10). All columns of a layer or a
statistic are permuted together, because features are so correlated that the loss of a single one hardly matters. The
verdict is applied as saved, so all methods are explained in the same way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradscore.errors import InputError
from gradscore.metrics.ranking import Ranking, auroc
from gradscore.model.metadata import ACTIVATION
from gradscore.verdict.model import Verdict

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Importance:
    """The AUROC that a verdict loses without the information in some features.

    Attributes
    ----------
    kind : {"head", "feature", "layer", "statistic"}
        What was permuted.
    name : str
        Name of the head, feature, layer or statistic. The numbers of a vector are one feature. A feature without a layer,
        such as "entropy", is its own statistic.
    loss, spread : float
        Mean and standard deviation of the loss of AUROC over the permutations.
    coefficient : float or None
        Coefficient of a feature in a linear verdict. None for other verdicts, layers and statistics.
    """

    kind: str
    name: str
    loss: float
    spread: float
    coefficient: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def explain(
    verdict: Verdict, features: npt.ArrayLike, correct: npt.ArrayLike, *, repeats: int = 5, seed: int = 0
) -> list[Importance]:
    """Return the permutation importance of each head, layer, statistic and feature that a verdict uses.

    Parameters
    ----------
    verdict : Verdict
        The verdict to explain.
    features : float [N, F]
        Held-out rows. LabelledRows with NaN or Inf are left out.
    correct : bool [N]
        Whether each prediction is right.
    repeats : int
        Number of permutations.
    seed : int
        Seed of the permutations.

    Returns
    -------
    list of Importance
        Heads first, then layers, statistics and features. Within each kind, the largest loss comes first.

    Raises
    ------
    InputError
        The shapes do not fit, a class is missing, or `repeats` is not positive.
    """
    rows, right = np.asarray(features, dtype=np.float64), np.asarray(correct)
    p = verdict.apply(rows)
    if right.shape != p.shape or right.dtype != np.bool_:
        raise InputError(f"correct must be boolean [{len(p)}], one value per row; got {right.dtype} {right.shape}")
    rows, right, p = rows[~np.isnan(p)], right[~np.isnan(p)], p[~np.isnan(p)]
    if repeats < 1 or right.all() or not right.any():
        raise InputError(
            f"an explanation needs correct and incorrect rows and at least one repeat; got {int(right.sum())} correct "
            f"of {len(right)} rows, {repeats} repeats"
        )
    whole, rng = auroc(Ranking.of(p, right)), np.random.default_rng(seed)
    orders = [rng.permutation(len(rows)) for _ in range(repeats)]
    coefficients = verdict.summary.get("coefficients")
    found = []
    for kind, name, columns in _subjects(verdict):
        losses = [whole - _auroc_without(verdict, rows, right, columns, order) for order in orders]
        weight = coefficients.get(name, 0.0) if coefficients is not None and kind == "feature" else None
        found.append(Importance(kind, name, float(np.mean(losses)), float(np.std(losses)), weight))
    found += _heads(verdict, rows, right, orders)
    return sorted(found, key=lambda one: (PART_KINDS.index(one.kind), -one.loss))


PART_KINDS = ("head", "layer", "statistic", "feature")
HEADS = ("p_right", "p_known")


def _heads(
    verdict: Verdict, rows: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], orders: Sequence[IntArray]
) -> list[Importance]:
    """Return what P(right)·P(known) loses without either; nothing for a verdict that answers one question."""
    answers = verdict.answers(rows)
    heads = {name: getattr(answers, name) for name in HEADS}
    if np.isnan(heads["p_known"]).any():
        return []
    whole, found = auroc(Ranking.of(heads["p_right"] * heads["p_known"], right)), []
    for name, other in zip(HEADS, reversed(HEADS), strict=True):
        losses = [whole - auroc(Ranking.of(heads[name][order] * heads[other], right)) for order in orders]
        found.append(Importance("head", name, float(np.mean(losses)), float(np.std(losses))))
    return found


def _subjects(verdict: Verdict) -> Iterator[tuple[str, str, IntArray]]:
    used = [name for name in verdict.feature_names if name in set(verdict.summary["used_features"])]
    place = {name: index for index, name in enumerate(verdict.feature_names)}
    layers = dict.fromkeys(name.rpartition(".")[0] for name in used if "." in name)
    statistics = dict.fromkeys(_statistic(name) for name in used)
    for layer in layers:
        yield "layer", layer, np.array([place[name] for name in used if name.rpartition(".")[0] == layer])
    for statistic in statistics:
        yield "statistic", statistic, np.array([place[name] for name in used if _statistic(name) == statistic])
    features = dict.fromkeys(_without_number(name) for name in used)
    for feature in features:
        yield "feature", feature, np.array([place[name] for name in used if _without_number(name) == feature])


def _without_number(name: str) -> str:
    """Return a feature's name, and for the numbers of a vector the name of the vector."""
    vector, _, last = name.rpartition(".")
    return vector if last.isdecimal() else name


def _statistic(feature: str) -> str:
    """Return the statistic of a feature: for those of activations apart from gradients, for a vector's number its name."""
    layer, _, statistic = feature.rpartition(".")
    if statistic.isdecimal():
        return layer.rpartition(".")[2]
    return f"{ACTIVATION}.{statistic}" if layer.endswith(f".{ACTIVATION}") else statistic


def _auroc_without(
    verdict: Verdict, rows: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], columns: IntArray, order: IntArray
) -> float:
    shuffled = rows.copy()
    shuffled[:, columns] = rows[np.ix_(order, columns)]
    return auroc(Ranking.of(verdict.apply(shuffled), right))
