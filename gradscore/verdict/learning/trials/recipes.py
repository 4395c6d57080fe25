"""Recipes: the ways to fit a verdict that answer both questions, and the choice among them by held-out rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gradscore.verdict.learning.heads.max_softmax import MaxSoftmaxRecipe
from gradscore.verdict.learning.heads.two_heads import TwoHeadsRecipe
from gradscore.verdict.learning.judge import Judgement, Recipe
from gradscore.verdict.learning.rows import LabelledRows
from gradscore.verdict.learning.trials.held_out import held_out, outer_parts
from gradscore.verdict.learning.trials.trial import Comparison, compare

AUTO = "auto"
FALLBACK = "max-softmax"

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "two-heads": TwoHeadsRecipe(),
        FALLBACK: MaxSoftmaxRecipe(),
    }
)
"""Recipes by name, in the order in which `auto` prefers them."""


@dataclass(frozen=True, eq=False)
class Choice:
    """The recipe that held-out rows speak for, its judgements of them, and why no other one was chosen."""

    name: str
    judged: Judgement | None
    notes: tuple[str, ...]


def choose(rows: LabelledRows, seed: int) -> Choice:
    """Choose the first recipe that is better than maximum softmax on held-out rows, or maximum softmax itself."""
    notes = []
    for name, recipe in RECIPES.items():
        lacking = recipe.lacks(rows)
        if lacking:
            notes.append(f"{name} lacks {lacking}")
            continue
        judged = held_out(recipe, rows, seed)
        if judged is None:
            notes.append(f"{name} cannot be tried on held-out rows: there are too few")
        elif name == FALLBACK or is_better(compare(judged, rows, outer_parts(rows, seed))):
            return Choice(name, judged, tuple(notes))
        else:
            notes.append(f"{name} is not better than maximum softmax on held-out rows")
    return Choice(FALLBACK, None, tuple(notes))


def is_better(comparisons: Mapping[str, Comparison]) -> bool:
    """Tell whether a recipe certainly gains on the widest question that the rows can ask, and certainly loses on none."""
    widest = comparisons.get("all") if "unknown" in comparisons else comparisons.get("wrong")
    return widest is not None and widest.gain_low > 0 and not any(one.is_worse for one in comparisons.values())
