"""Rows and settings -> a calibrated judge, its threshold, and what held-out rows say of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from gradscore.errors import InputError
from gradscore.metrics.ranking import Ranking
from gradscore.verdict.learning.calibrated import calibrated
from gradscore.verdict.learning.classifiers import fitting
from gradscore.verdict.learning.classifiers.methods import METHODS
from gradscore.verdict.learning.classifiers.single_head import SingleHeadRecipe
from gradscore.verdict.learning.judge import Judge, Judgement
from gradscore.verdict.learning.rows import LabelledRows
from gradscore.verdict.learning.settings import Settings
from gradscore.verdict.learning.summary import asked, counted
from gradscore.verdict.learning.thresholds import balanced_gain
from gradscore.verdict.learning.trials.held_out import divides_kinds, held_out, outer_parts
from gradscore.verdict.learning.trials.recipes import AUTO, FALLBACK, RECIPES, choose
from gradscore.verdict.learning.trials.trial import Trial, tried

ENOUGH_WRONG = 50  # wrong predictions of known inputs, for an AUROC with a standard error of about 4 points
CLASSIFIER_SETTINGS = ("transform", "calibration", "select", "ensemble")


@dataclass(frozen=True, eq=False)
class LearnedVerdict:
    """A fitted judge, the method that made it, its threshold, and the summary of the fit."""

    judge: Judge
    method: str
    threshold: float
    summary: dict[str, Any]


def learn(rows: LabelledRows, settings: Settings, excluded: int) -> LearnedVerdict:
    """Fit by `settings.method`; with "auto", choose the recipe first. Errors are those of `Verdict.fit`."""
    if isinstance(settings.method, str) and settings.method in (AUTO, *RECIPES):
        _require_settings(settings)
        import sklearn.linear_model  # noqa: F401, PLC0415 - brings BLAS libraries; only loaded ones can be limited

        # Threads would cost more than they save on matrices of this size, and their number would change the last bits.
        with threadpool_limits(1):
            return _by_recipe(rows, settings, excluded)
    if isinstance(settings.method, str) and settings.method not in METHODS:
        names = ", ".join((AUTO, *RECIPES, *METHODS))
        raise InputError(f"unknown method {settings.method!r}; choose one of: {names}")
    fitting.require_both_classes(rows.right, excluded)
    return _by_method(rows, settings, excluded)


def _require_settings(settings: Settings) -> None:
    """Refuse an impossible mix, and settings that only single classifiers have: nothing would heed them."""
    if not 0 < settings.unknown_share < 1:
        raise InputError(
            f"unknown_share must lie between 0 and 1, without these; got {settings.unknown_share:g} (--unknown-share)"
        )
    plain = Settings()
    foreign = [name for name in CLASSIFIER_SETTINGS if getattr(settings, name) != getattr(plain, name)]
    if foreign:
        raise InputError(
            f"{settings.method} chooses {' and '.join(foreign)} by itself: leave that out, or name a method that "
            f"takes it, such as ridge ({', '.join(METHODS)})"
        )


def _by_recipe(rows: LabelledRows, settings: Settings, excluded: int) -> LearnedVerdict:
    """Fit a recipe, calibrate it and choose its threshold on held-out rows."""
    fitting.require_rule(settings.rule)
    name, notes, judged = str(settings.method), [], None
    if name == AUTO:
        choice = choose(rows, settings.seed)
        name, notes, judged = choice.name, list(choice.notes), choice.judged
    recipe = RECIPES[name]
    if lacking := recipe.lacks(rows):
        left_out = f" ({excluded} more rows have NaN or Inf features or an error)" if excluded else ""
        raise InputError(f"{name} cannot be fitted: the {len(rows)} rows lack {lacking}{left_out}. {_REMEDY}")
    judged = judged or held_out(recipe, rows, settings.seed)
    judge: Judge = recipe.fit(rows, settings.seed)
    if judged is None:
        notes.append("too few rows for a trial on held-out rows: calibration and threshold are from the training rows")
    seen = judged or judge(rows.features)
    fitted = calibrated(judge, seen, rows, settings.unknown_share)
    decided = fitted.calibrate(seen)
    ranking = Ranking.of(decided.p_correct, rows.right)
    threshold = settings.rule.threshold(ranking)
    summary = {
        **counted(rows, excluded),
        **asked(settings),
        "used_features": [rows.names[column] for column in used_columns(fitted, len(rows.names))],
        "threshold_rows": "training" if judged is None else "held out by cross-validation",
        "threshold_balanced_accuracy": balanced_gain(ranking),
    }
    return _with_trial(
        LearnedVerdict(fitted, name, threshold, summary),
        None if judged is None else decided,
        rows,
        notes,
        settings.seed,
    )


def _by_method(rows: LabelledRows, settings: Settings, excluded: int) -> LearnedVerdict:
    """Fit one classifier over all columns, and try it on held-out rows with the penalty that it has found."""
    fitted = fitting.fit(rows.features, rows.right, rows.names, settings)
    judge = SingleHeadRecipe.around(fitted, rows)
    judged = held_out(SingleHeadRecipe(settings, fitted), rows, settings.seed) if settings.folds else None
    method = settings.method if isinstance(settings.method, str) else type(settings.method).__name__
    summary = {**fitted.summary, **counted(rows, excluded)}
    notes = summary.pop("notes")
    if judged is None:
        notes.append(f"{'too few rows' if settings.folds else 'no folds'} for a trial on held-out rows")
    return _with_trial(LearnedVerdict(judge, method, fitted.threshold, summary), judged, rows, notes, settings.seed)


def _with_trial(
    learned: LearnedVerdict, judged: Judgement | None, rows: LabelledRows, notes: list[str], seed: int
) -> LearnedVerdict:  # fmt: skip
    """Add the trial and its notes to the summary."""
    trial = None if judged is None else tried(judged, rows, outer_parts(rows, seed), learned.threshold)
    summary = {**learned.summary, "trial": trial and trial.as_dict(), "notes": [*notes, *_notes(learned, trial, rows)]}
    return LearnedVerdict(learned.judge, learned.method, learned.threshold, summary)


def _notes(learned: LearnedVerdict, trial: Trial | None, rows: LabelledRows) -> list[str]:
    """Return warnings that a user should read before relying on the verdict."""
    notes = []
    wrong = int((~rows.right & rows.known).sum())
    if wrong < ENOUGH_WRONG:
        more = ENOUGH_WRONG - wrong
        notes.append(
            f"only {wrong} wrong among known inputs: {more} more would tell how well wrong ones are found (±8 points)"
        )
    if not rows.known.all() and not divides_kinds(rows):
        notes.append("one kind of unknown input: nothing shows what this verdict says of other kinds")
    worse = [name for name, one in (trial.comparisons if trial else {}).items() if one.is_worse]
    if worse and learned.method != FALLBACK:
        notes.append(f"WORSE than maximum softmax on held-out rows ({', '.join(worse)}): use --method auto")
    return notes


_REMEDY = (
    "Score more inputs that the classifier was not trained on; give --model and --known, from which unknown inputs are made; "
    "or use --method auto"
)


def used_columns(judge: Judge, count: int) -> list[int]:
    """Return the columns that a judge reads: those that its graph selects."""
    from gradscore.verdict.learning.verdict_graph import selected, verdict_graph  # noqa: PLC0415 - it loads onnx

    return sorted(set(np.asarray(selected(verdict_graph(judge, count))).tolist()))
