"""Rows of the tables: the name, the fitting rows and the recipe of each.

Table 4 depends on the available scores: if a score table lacks a column, the rows that read it are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tools.paper.recipes import Feature, Fit, Raw, Recipe

UNFITTED = ""
VALIDATION = "validation"
SYNTHETIC = "synthetic unknowns"

MAX_SOFTMAX = Feature("residual")  # 1 − maximum softmax, which keeps the order of values that round to 1
SHOWN_STATISTICS = {"l1": -1, "l2": -1, "min": 1, "max": -1, "std": -1}
PENALISED = {"glm": "GLM", "lasso": "LASSO", "ridge": "ridge", "elastic-net": "elastic net"}
METHOD_NAMES = {**PENALISED, "nn": "neural network", "boosting": "boosting"}
OTHER_SCORES = {"energy": 1, "max_logit": 1, "margin": 1, "gradnorm": 1}
EVERY_SCORE = ", all scores"  # in the names of rows that read more than the gradient and the softmax
WEIGHT = 5  # weight of wrong predictions of the known concept, because known unknowns outnumber them


@dataclass(frozen=True)
class Row:
    """One row of one table.

    Attributes
    ----------
    table : int
        1 to 4, or 0 for the appendix of single layers.
    name : str
        Name of the method or feature.
    fitted_on : str
        Rows added to the validation rows for fitting, a key of `study.fitting_sets`.
    recipe : Recipe
        Recipe of the confidence.
    """

    table: int
    name: str
    fitted_on: str
    recipe: Recipe


def rows_of(features: Sequence[str], fitted_on: Sequence[str]) -> list[Row]:
    """Return all rows for score tables with these features, and for these fitting sets."""
    activations = tuple(name for name in features if ".activation." in name)
    gradients = tuple(name for name in features if "." in name and name not in activations)
    return [
        *_single(gradients),
        *_paper(gradients, fitted_on),
        *_beyond(features, gradients, activations, fitted_on),
    ]


def _single(gradients: Sequence[str]) -> list[Row]:
    layers = dict.fromkeys(name.rpartition(".")[0] for name in gradients)
    numbers = {"max softmax": MAX_SOFTMAX, "entropy": Feature("entropy")}
    shown = [Row(1, name, UNFITTED, recipe) for name, recipe in numbers.items()]
    for layer in (*[name for name in layers if name == "all"], *[name for name in layers if name != "all"]):
        for statistic, sign in SHOWN_STATISTICS.items():
            feature = f"{layer}.{statistic}"
            shown.append(Row(int(layer == "all"), feature, UNFITTED, Feature(feature, sign)))
    return shown


def _paper(gradients: tuple[str, ...], fitted_on: Sequence[str]) -> list[Row]:
    features = (*gradients, "entropy")
    penalised = [Row(2, name, VALIDATION, Raw(method, features)) for method, name in PENALISED.items()]
    return penalised + [
        Row(3, "neural network", fitted, Raw("nn", features)) for fitted in fitted_on if fitted != SYNTHETIC
    ]


def _beyond(
    features: Sequence[str], gradients: tuple[str, ...], activations: tuple[str, ...], fitted_on: Sequence[str]
) -> list[Row]:
    scores = tuple(name for name in OTHER_SCORES if name in features)
    whole = (*gradients, "entropy", "residual")
    more = (*whole, *scores, *activations)
    picture = next((name.partition(".")[0] for name in activations), "")
    inner = tuple(name for name in more if not name.startswith(f"{picture}.activation."))
    every = fitted_on[-2]  # all known unknowns
    rows = [Row(4, name, UNFITTED, Feature(name, OTHER_SCORES[name])) for name in scores]
    for fitted in fitted_on:
        rows += _quick(fitted, whole, "")
        rows += _quick(fitted, more, EVERY_SCORE) if more != whole else []
    if more != whole:
        rows += _quick(every, inner, f"{EVERY_SCORE} but the picture's own")
        rows += _other(every, more, EVERY_SCORE, ("lasso", "boosting")) + _weighted(every, more, EVERY_SCORE)
    for fitted in (VALIDATION, every, SYNTHETIC):
        rows += _other(fitted, whole, "", tuple(METHOD_NAMES))
    return rows + _weighted(every, whole, "")


def _quick(fitted: str, features: tuple[str, ...], kind: str) -> list[Row]:
    recipes = {"ridge": Fit("ridge", features), f"ridge, wrong ones ×{WEIGHT}": Fit("ridge", features, weight=WEIGHT)}
    return [Row(4, name + kind, fitted, recipe) for name, recipe in recipes.items()]


def _other(fitted: str, features: tuple[str, ...], kind: str, methods: tuple[str, ...]) -> list[Row]:
    return [
        Row(4, METHOD_NAMES[method] + kind, fitted, Fit(method, features)) for method in methods if method != "ridge"
    ]


def _weighted(fitted: str, features: tuple[str, ...], kind: str) -> list[Row]:
    recipes = {
        "ridge on normal scores": Fit("ridge", features, "quantile", WEIGHT),
        "LASSO": Fit("lasso", features, weight=WEIGHT),
        "neural network": Fit("nn", features, weight=WEIGHT),
    }
    return [Row(4, f"{name}, wrong ones ×{WEIGHT}{kind}", fitted, recipe) for name, recipe in recipes.items()]
