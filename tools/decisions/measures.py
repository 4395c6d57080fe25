"""How well answers serve on the test rows of one task and seed: the protocols that the tables report.

`all` has right predictions of known inputs against wrong ones and all unknown inputs of groups that no fit has seen. `wrong`
has known inputs alone. OpenOOD's protocol has all known inputs, right or wrong, against each group of unknown ones; the mean
over the groups counts (Yang et al. 2022, "OpenOOD: Benchmarking Generalized Out-of-Distribution Detection"). AUPR and FPR95 on
`all` are those of Hendrycks and Gimpel 2017, AURC that of Geifman and El-Yaniv 2017, ECE that of Guo et al. 2017.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradscore.metrics import ranking
from gradscore.metrics.evaluation import evaluate
from gradscore.metrics.ranking import Ranking
from tools.decisions.answers import Answers
from tools.decisions.measured import FloatArray, Mask, Measured

UNKNOWN = ("near", "far", "noise")
SEEN = frozenset({"uniform noise", "normal noise", "random ids", "inverted numbers", "columns in another order"})
"""Groups that a kind of synthetic unknown in the fit makes too; "permutation" makes other orders of columns."""
DRAWS = 200  # outcomes, for the ECE of perfect probabilities
FLOORED = ("correct", "right")  # the probabilities that have an ECE


def unseen(measured: Measured, *families: str) -> list[str]:
    """Return the test groups of these families that no kind in the fit makes."""
    pairs = zip(measured.group_names, measured.families, strict=True)
    return [name for name, family in pairs if family in families and name not in SEEN]


def measures(measured: Measured, answers: Answers, *, probabilities: bool) -> dict[str, Any]:
    """Return every measure by name; those of a question without both kinds of rows are missing."""
    known = measured.family("known")[measured.test]
    right = measured.correct[measured.test] & known
    unknown = np.any([measured.of(name)[measured.test] for name in unseen(measured, *UNKNOWN)], axis=0)
    together, found = evaluate(answers.correct[known | unknown], right[known | unknown]), {}
    found |= {
        "all": together.auroc,
        "aupr_in": together.aupr_in,
        "aupr_out": together.aupr_out,
        "fpr95": together.fpr95,
    }
    found |= {f"{name}_product": one for name, one in _wrong(answers.correct[known], right[known]).items()}
    found |= {"wrong": found.get("wrong_product"), **_wrong(answers.right[known], right[known])}
    found["aurc"] = ranking.aurc(Ranking.of(answers.correct[known], right[known]))
    for family in UNKNOWN:
        found |= _against(measured, answers, known, right, family)
    found |= {
        "corrupted": _corrupted(measured, answers.correct),
        "corrupted_right": _corrupted(measured, answers.right),
    }
    if probabilities:
        for question in FLOORED:
            found |= calibration(getattr(answers, question)[known], right[known], question)
    groups = [*unseen(measured, *UNKNOWN), *(name for name in measured.group_names if name in SEEN)]
    found["groups"] = {name: _auroc(answers.correct, right, measured.of(name)[measured.test]) for name in groups}
    return {name: value for name, value in found.items() if value is not None}


def _wrong(confidence: FloatArray, right: Mask) -> dict[str, float]:
    if right.all() or not right.any():
        return {}
    return {"wrong": ranking.auroc(Ranking.of(confidence, right))}


def _against(measured: Measured, answers: Answers, known: Mask, right: Mask, family: str) -> dict[str, float]:
    """Return the means over a family's groups: OpenOOD's AUROC and FPR95, the same AUROC of P(known), and right rows only."""
    groups = [measured.of(name)[measured.test] for name in unseen(measured, family)]
    if not groups:
        return {}
    judged = [evaluate(answers.correct[known | one], known[known | one], convention="openood") for one in groups]
    return {
        family: _mean([one.auroc for one in judged]),
        f"{family}_fpr95": _mean([one.fpr95 for one in judged]),
        f"{family}_known": _mean([_auroc(answers.known, known, one) for one in groups]),
        f"{family}_right": _mean([_auroc(answers.correct, right, one) for one in groups]),
    }


def _corrupted(measured: Measured, confidence: FloatArray) -> float | None:
    """Return the mean over the corruptions of the AUROC of right against wrong predictions."""
    right = measured.correct[measured.test]
    groups = [measured.of(name)[measured.test] for name in unseen(measured, "corruption")]
    whole = [one for one in groups if right[one].any() and not right[one].all()]
    return _mean([_auroc(confidence, right & one, ~right & one) for one in whole]) if whole else None


def calibration(p: FloatArray, right: Mask, question: str) -> dict[str, float]:
    """Return the ECE, and what perfect probabilities of this size would have: few rows alone make an ECE above 0."""
    if np.isnan(p).any():
        return {}
    rng = np.random.default_rng(0)
    drawn = [_ece(p, rng.random(len(p)) < p) for _ in range(DRAWS)]
    return {f"ece_{question}": _ece(p, right), f"ece_{question}_floor": _mean(drawn)}


def _ece(p: FloatArray, right: Mask) -> float:
    found = ranking.ece(Ranking.of(p, right))
    if found is None:
        raise ValueError("these are no probabilities")
    return found


def _auroc(confidence: FloatArray, positive: Mask, negative: Mask) -> float:
    rows = positive | negative
    return ranking.auroc(Ranking.of(confidence[rows], positive[rows]))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
