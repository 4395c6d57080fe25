"""Judgements of rows that took no part in the fit: by parts of the known rows, and by kinds of the unknown ones.

A kind of unknown input is never both fitted and judged, so the judgements are those of unknown inputs that nobody foresaw.
"""

import numpy as np
import numpy.typing as npt

from gradscore.verdict.learning.judge import Judgement, Recipe
from gradscore.verdict.learning.rows import LabelledRows

IntArray = npt.NDArray[np.int64]

PARTS = 5


def held_out(recipe: Recipe, rows: LabelledRows, seed: int) -> Judgement | None:
    """Return the judgement of every row by a fit without its part; None if some fit would lack rows.

    A single kind of unknown input can only be divided by rows.
    """
    part = outer_parts(rows, seed)
    if recipe.lacks(rows) or any(recipe.lacks(rows.take(part != number)) for number in np.unique(part)):
        return None
    answers = np.empty((3, len(rows)))
    for number in np.unique(part):
        out = part == number
        found = recipe.fit(rows.take(~out), seed)(rows.features[out])
        answers[:, out] = found.p_right, found.p_known, found.p_correct
    return Judgement(*answers)


def divides_kinds(rows: LabelledRows) -> bool:
    """Tell whether there are several kinds of unknown input, so that each can be held out from fits to the others."""
    return len(rows.kinds) > 1


def outer_parts(rows: LabelledRows, seed: int) -> IntArray:
    """Return the part of each row [N]: known ones evenly, right and wrong ones alike; unknown ones by kind."""
    rng = np.random.default_rng([seed, PARTS])
    part = rows.dealt(PARTS, rng)
    if divides_kinds(rows):
        for place, kind in enumerate(rng.permutation(rows.kinds)):
            part[rows.kind == kind] = place % PARTS
    return part
