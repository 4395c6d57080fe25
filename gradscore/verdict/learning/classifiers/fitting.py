"""Fitting: features and outcomes -> a meta-classifier, its calibration and its threshold."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from gradscore_kernels import usable_cores
from threadpoolctl import threadpool_limits

from gradscore.errors import InputError
from gradscore.metrics.ranking import Ranking
from gradscore.verdict.learning.calibration import CALIBRATIONS, Calibration
from gradscore.verdict.learning.classifiers.estimators import Estimator, exporter_of
from gradscore.verdict.learning.classifiers.methods import METHODS, Given, Method
from gradscore.verdict.learning.classifiers.noise import without_noise
from gradscore.verdict.learning.settings import Settings
from gradscore.verdict.learning.summary import asked, learned
from gradscore.verdict.learning.thresholds import Rule, balanced_gain, describe
from gradscore.verdict.learning.transforms import TRANSFORMS, Transform

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

FEWEST_PER_CLASS = 5
FEWEST_PER_CLASS_AND_FOLD = 2
MOST_TUNING_ROWS = 10_000  # limits memory, too: every fold holds its own transformed rows
PATIENCE = 2  # penalties in a row without a smaller held-out loss; weaker ones are not tried


@dataclass(frozen=True)
class FitPlan:
    """Everything that a fit depends on except the rows.

    The same plan and rows give the same verdict.
    """

    method: Method
    transform: type[Transform]
    calibration: type[Calibration]
    columns: IntArray
    folds: int
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Fitted:
    """A fitted transform, classifiers, calibration and threshold, with a summary of the fit.

    The calibration applies to the mean probability of the classifiers.
    """

    transform: Transform
    members: tuple[Estimator, ...]
    calibration: Calibration
    threshold: float
    summary: dict[str, Any]

    def p_correct(self, features: FloatArray) -> FloatArray:
        """Return P(correct) [N] of finite rows [N, F], computed by scikit-learn."""
        return self.calibration(_mean_probability(self.members, self.transform(features)))


def fit(features: FloatArray, correct: BoolArray, feature_names: Sequence[str], settings: Settings) -> Fitted:
    """Fit a meta-classifier to rows [N, F] and outcomes [N]. Errors are those of `Verdict.fit`.

    Folds are fitted side by side, with one thread of linear algebra each, so that the number of cores changes no bit.
    """
    import sklearn.linear_model  # noqa: F401, PLC0415 - brings scipy's linear algebra, which can be limited once loaded

    with threadpool_limits(1):
        return _fit(features, correct, feature_names, settings)


def _fit(features: FloatArray, correct: BoolArray, feature_names: Sequence[str], settings: Settings) -> Fitted:
    finite = np.isfinite(features).all(axis=1)
    rows, right = features[finite], correct[finite]
    excluded = int((~finite).sum())
    require_both_classes(right, excluded)
    columns = without_noise(_columns_of(feature_names, settings.select), rows, feature_names)
    plan = _plan(settings, right, columns)
    held_out, penalty, notes = _cross_validated(rows, right, plan)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        transform, members = _fitted(rows, right, plan, penalty)
    notes += sorted({str(warning.message).splitlines()[0] for warning in caught})
    if settings.folds and not plan.folds:
        notes.append(
            f"too few rows of one class for {settings.folds} folds: default penalty, threshold from training rows"
        )
    ranked, p = (right, _mean_probability(members, transform(rows))) if held_out is None else held_out
    calibration = plan.calibration.fit(p, ranked)
    ranking = Ranking.of(calibration(p), ranked)
    summary = {
        "rows": len(right),
        "correct": int(right.sum()),
        "incorrect": int((~right).sum()),
        "excluded_not_finite": excluded,
        "penalty": penalty,
        "folds": plan.folds,
        **asked(settings),
        **learned(members, [feature_names[column] for column in transform.columns]),
        "threshold_rows": "training" if held_out is None else "held out by cross-validation",
        "threshold_balanced_accuracy": balanced_gain(ranking),
        "notes": notes,
    }
    return Fitted(transform, members, calibration, settings.rule.threshold(ranking), summary)


def _plan(settings: Settings, correct: BoolArray, columns: IntArray) -> FitPlan:
    """Look up the names in the settings, and refuse impossible settings."""
    if settings.ensemble < 1 or settings.folds < 0 or settings.folds == 1:
        raise InputError(
            f"ensemble must be 1 or more, folds 0 or from 2 up; got {settings.ensemble} and {settings.folds}"
        )
    require_rule(settings.rule)
    plan = FitPlan(
        _method_of(settings.method),
        _named(TRANSFORMS, settings.transform, "transform"),
        _named(CALIBRATIONS, settings.calibration, "calibration"),
        columns,
        _possible_folds(correct, settings.folds),
        tuple(range(settings.seed, settings.seed + settings.ensemble)),
    )
    plan.method.require(len(correct), len(plan.columns))
    if settings.calibration != "none" and not plan.folds:
        raise InputError(
            f"{settings.calibration} calibration needs rows held out by cross-validation, but there are none: set "
            f"folds, and give at least {FEWEST_PER_CLASS_AND_FOLD} correct and {FEWEST_PER_CLASS_AND_FOLD} incorrect rows for each fold"
        )
    return plan


def require_rule(rule: Rule) -> None:
    """Refuse a threshold rule whose guarantee needs rows that the fit has not seen."""
    if rule.needs_unseen_rows:
        raise InputError(
            f"a threshold by {describe(rule)['rule']} needs rows that the verdict was not fitted on: fit first, "
            "then call Verdict.decide_by with such rows (--calibration)"
        )


def _named(table: Mapping[str, Any], name: str, kind: str) -> Any:
    if name not in table:
        raise InputError(f"unknown {kind} {name!r}; choose one of: {', '.join(table)}")
    return table[name]


def _method_of(method: str | Estimator) -> Method:
    if isinstance(method, str):
        return cast("Method", _named(METHODS, method, "method"))
    exporter_of(method)
    if not hasattr(method, "predict_proba"):
        raise InputError(f"{type(method).__name__} with these settings gives no probabilities; a verdict needs them")
    return Given(method)


def _columns_of(feature_names: Sequence[str], select: Sequence[str] | None) -> IntArray:
    """Return the indices of features that match any of the patterns, in the table's order."""
    patterns = ("*",) if select is None else tuple(select)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in feature_names):
            shown = ", ".join(feature_names[:5])
            raise InputError(f"no feature matches {pattern!r} (--features); the table has {shown}, …")
    chosen = [i for i, name in enumerate(feature_names) if any(fnmatchcase(name, one) for one in patterns)]
    if not chosen:
        raise InputError("no feature is selected (--features); omit the selection to use all")
    return np.array(chosen, dtype=np.int64)


def require_both_classes(correct: BoolArray, excluded: int) -> None:
    """Refuse rows with fewer than five of one class; `excluded` more were not finite."""
    right, wrong = int(correct.sum()), int((~correct).sum())
    if min(right, wrong) < FEWEST_PER_CLASS:
        left_out = f" ({excluded} more have NaN or Inf features or an error and cannot be used)" if excluded else ""
        raise InputError(
            f"cannot fit a verdict to {right} correct and {wrong} incorrect predictions{left_out}: at least "
            f"{FEWEST_PER_CLASS} of each are needed. Score more data that the classifier was not trained on, or add "
            "inputs of unknown classes, whose predictions count as incorrect"
        )


def _possible_folds(correct: BoolArray, folds: int) -> int:
    rarer = min(int(correct.sum()), int((~correct).sum()))
    return folds if rarer >= FEWEST_PER_CLASS_AND_FOLD * folds else 0


def _cross_validated(
    features: FloatArray, correct: BoolArray, plan: FitPlan
) -> tuple[tuple[BoolArray, FloatArray] | None, float, list[str]]:
    """Choose the penalty with the least held-out log loss.

    Returns outcomes and held-out P(correct) for it (None without folds), the penalty, and notes.
    """
    if not plan.folds:
        return None, plan.method.penalty, []
    from sklearn.model_selection import StratifiedKFold  # noqa: PLC0415 - loaded for fitting only

    chosen = _tuning_rows(correct, plan.seeds[0])
    rows, right = features[chosen], correct[chosen]
    penalties = plan.method.penalties or (plan.method.penalty,)
    splits = list(StratifiedKFold(plan.folds, shuffle=True, random_state=plan.seeds[0]).split(rows, right))
    found: list[tuple[float, FloatArray]] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(min(plan.folds, usable_cores())) as pool:
        warnings.simplefilter("ignore")  # a fold that did not converge has a larger held-out loss
        folds = list(pool.map(lambda split: _Fold.of(rows, right, split, plan), splits))
        for _ in penalties:
            p = np.empty(len(right))
            for (_, test), held_out in zip(splits, pool.map(_Fold.weaken, folds), strict=True):
                p[test] = held_out
            found.append((float(np.log(np.clip(np.where(right, p, 1 - p), 1e-15, None)).mean()), p))
            best = max(range(len(found)), key=lambda index: found[index][0])
            if len(found) > best + PATIENCE:
                break
    notes = [] if len(right) == len(correct) else [f"cross-validated on {len(right)} of {len(correct)} rows"]
    return (right, found[best][1]), penalties[best], notes


@dataclass(frozen=True)
class _Fold:
    """The rows that a fold holds out, transformed, and the classifiers fitted to its others, one path for each seed."""

    held_out: FloatArray
    paths: tuple[Iterator[Estimator], ...]

    @classmethod
    def of(cls, features: FloatArray, correct: BoolArray, split: tuple[IntArray, IntArray], plan: FitPlan) -> "_Fold":
        train, test = split
        transform, z = _transformed(features[train], correct[train], plan)
        penalties = plan.method.penalties or (plan.method.penalty,)
        paths = [plan.method.path(z, correct[train], penalties, seed) for seed in plan.seeds]
        return cls(transform(features[test]), tuple(paths))

    def weaken(self) -> FloatArray:
        """Fit with the next penalty, and return P(correct) of the rows held out."""
        return _mean_probability([next(path) for path in self.paths], self.held_out)


def _tuning_rows(correct: BoolArray, seed: int) -> IntArray:
    if len(correct) <= MOST_TUNING_ROWS:
        return np.arange(len(correct))
    from sklearn.model_selection import StratifiedShuffleSplit  # noqa: PLC0415 - loaded for fitting only

    split = StratifiedShuffleSplit(1, train_size=MOST_TUNING_ROWS, random_state=seed)
    return np.sort(next(split.split(correct, correct))[0])


def _fitted(
    features: FloatArray, correct: BoolArray, plan: FitPlan, penalty: float
) -> tuple[Transform, tuple[Estimator, ...]]:
    transform, z = _transformed(features, correct, plan)
    members = [plan.method.estimator(len(correct), penalty, seed).fit(z, correct) for seed in plan.seeds]
    return transform, tuple(members)


def _transformed(features: FloatArray, correct: BoolArray, plan: FitPlan) -> tuple[Transform, FloatArray]:
    """Fit the transform, and return it and the features that the method uses."""
    transform = plan.transform.fit(features, plan.columns)
    if not len(transform.columns):
        raise InputError(
            f"all {len(plan.columns)} features are constant over the {len(correct)} rows, so no verdict can be learned "
            "from them. Check that the inputs differ and that the model scores them (`gradscore inspect`)"
        )
    z = transform(features)
    kept = plan.method.columns(z, correct)
    return transform.only(kept), z[:, kept]


def _mean_probability(members: Sequence[Estimator], z: FloatArray) -> FloatArray:
    return np.asarray(np.mean([member.predict_proba(z)[:, 1] for member in members], axis=0), dtype=np.float64)


def require_fittable(features: FloatArray, correct: BoolArray, names: Sequence[str], settings: Settings) -> None:
    """Refuse finite rows that cannot be fitted with these settings; errors are those of `Verdict.fit`."""
    require_both_classes(correct, 0)
    _plan(settings, correct, without_noise(_columns_of(names, settings.select), features, names))


def refit(
    fitted: Fitted, features: FloatArray, correct: BoolArray, names: Sequence[str], settings: Settings
) -> Fitted:  # fmt: skip
    """Fit to other finite rows with the penalty, calibration and threshold of an earlier fit, and without a summary."""
    plan = _plan(settings, correct, without_noise(_columns_of(names, settings.select), features, names))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit to all rows tells its own
        transform, members = _fitted(features, correct, plan, fitted.summary["penalty"])
    return Fitted(transform, members, fitted.calibration, fitted.threshold, {})
