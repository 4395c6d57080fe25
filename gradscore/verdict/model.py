"""The verdict: from features to P(right), P(known) and P(correct), as an ONNX model once fitted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pyarrow as pa

from gradscore.errors import InputError
from gradscore.metrics.ranking import Ranking
from gradscore.runtime.session import open_session
from gradscore.tables.table import ScoreTable, require_same_features, require_same_model, require_same_reference
from gradscore.verdict import saving
from gradscore.verdict.learning.classifiers.estimators import Estimator
from gradscore.verdict.learning.judge import Judgement
from gradscore.verdict.learning.learn import learn
from gradscore.verdict.learning.rows import KNOWN, LabelledRows
from gradscore.verdict.learning.settings import Settings
from gradscore.verdict.learning.thresholds import BALANCED, Rule, describe
from gradscore.verdict.learning.verdict_graph import verdict_graph
from gradscore.verdict.learning.verdict_nodes import INPUT, OUTPUT, VERDICT_OUTPUTS

FloatArray = npt.NDArray[np.float64]

LOOKS_WRONG, LOOKS_UNKNOWN = "looks wrong", "looks unknown"
ROWS_PER_RUN = 1024  # limits memory: a row takes about 6 kB in tree ensembles, about 50 kB in quantiles of 200 features


@dataclass(frozen=True, eq=False)
class Verdict:
    """A fitted verdict: features of one scoring model in, three probabilities out.

    Attributes
    ----------
    feature_names : tuple of str
        Features that the verdict takes, in order.
    model_fingerprint : str
        SHA-256 of the scoring model that computes these features.
    method : str
        A key of `RECIPES` or `METHODS`, or the class name of the estimator given.
    threshold : float
        Predictions with P(correct) at or above it are accepted.
    summary : mapping
        LabelledRows, classes, hyper-parameters, the trial on held-out rows, notes and package versions of the fit.
    proto : onnx.ModelProto
        The ONNX model, as saved.
    """

    feature_names: tuple[str, ...]
    model_fingerprint: str
    method: str
    threshold: float
    summary: Mapping[str, Any]
    proto: onnx.ModelProto

    @classmethod
    def fit(
        cls,
        features: npt.ArrayLike,
        correct: npt.ArrayLike,
        *,
        feature_names: Sequence[str],
        model_fingerprint: str,
        kind: npt.ArrayLike | None = None,
        label: npt.ArrayLike | None = None,
        method: str | Estimator = "auto",
        transform: str = "signed-log",
        calibration: str = "none",
        select: Sequence[str] | None = None,
        folds: int = 5,
        ensemble: int = 1,
        seed: int = 0,
        rule: Rule = BALANCED,
        unknown_share: float = 0.02,
        reference_sha256: str | None = None,
    ) -> "Verdict":
        """Fit a verdict to features of predictions whose outcome is known.

        Before it returns, the verdict is compared with maximum softmax and entropy on held-out rows: known ones by
        cross-validation, unknown ones by their kind. `summary["trial"]` holds the figures. The threshold and, for recipes,
        the calibration are chosen on the same rows.

        Parameters
        ----------
        features : float [N, F]
            LabelledRows with NaN or Inf, such as rows with an error, are left out and counted in the summary.
        correct : bool [N]
            Whether each prediction is right.
        feature_names : sequence of str, [F]
            Names of the features.
        model_fingerprint : str
            SHA-256 of the scoring model.
        kind : int [N], optional
            Number of the kind of each unknown input, and −1 for inputs of known classes. By default, all are known.
        label : int [N], optional
            Predicted classes. With them, `two-heads` learns what is usual class by class.
        method : str or scikit-learn classifier
            "auto", a key of `RECIPES` or `METHODS`, or a classifier of a class in `EXPORTERS`. "auto" takes the first recipe
            that is better than maximum softmax on held-out rows, and else maximum softmax itself. A recipe gives P(correct)
            for a mix with `unknown_share` of unknown inputs; a method gives it for the mix of the rows.
        transform : str
            A key of `TRANSFORMS`. The transform is applied to the features first. Recipes have their own, and choose
            calibration and features by themselves.
        calibration : {"none", "platt", "isotonic"}
            Calibration, learned from the rows held out by cross-validation.
        select : sequence of str, optional
            Patterns of the features to use, such as "fc.*". All by default.
        folds : int
            Folds of the cross-validation that chooses penalty and threshold of a method. With 0, the penalty is the default
            and the threshold is chosen on the training rows. Recipes always hold out five parts.
        ensemble : int
            Number of classifiers with consecutive seeds to average, for `nn` and `boosting`.
        seed : int
            Seed. The same seed and rows give the same verdict.
        rule : Rule
            How to choose the threshold, from `THRESHOLDS`. By default, both classes have the same weight (equation 7).
        unknown_share : float
            Share of unknown inputs for which a recipe calibrates its probabilities, between 0 and 1.
        reference_sha256 : str, optional
            SHA-256 of the reference that the features' detectors compared with. Other tables are then refused.

        Returns
        -------
        Verdict
            The fitted verdict.

        Raises
        ------
        InputError
            The shapes do not fit, labels are missing, a class has too few rows, all features are constant, or a name or
            setting is not possible.
        """
        names = tuple(feature_names)
        rows, excluded = _rows(features, correct, names, kind, label)
        settings = Settings(method, transform, calibration, select, folds, ensemble, seed, rule, unknown_share)
        learned = learn(rows, settings, excluded)
        metadata = {
            "feature_names": list(names),
            "model_fingerprint": model_fingerprint,
            "method": learned.method,
            "threshold": learned.threshold,
            "summary": learned.summary | ({"reference_sha256": reference_sha256} if reference_sha256 else {}),
        }
        return cls._of(saving.assemble(verdict_graph(learned.judge, len(names)), metadata), metadata)

    def decide_by(self, rule: Rule, features: npt.ArrayLike, correct: npt.ArrayLike) -> "Verdict":
        """Return this verdict with another threshold, chosen by a rule on further rows.

        LabelledRows with NaN or Inf are left out. The guarantees of the conformal rules hold only for rows that were not used in
        the fit.

        Parameters
        ----------
        rule : Rule
            How to choose the threshold, from `THRESHOLDS`.
        features : float [N, F]
            Features of the further rows.
        correct : bool [N]
            Whether the prediction of each row is right.

        Raises
        ------
        InputError
            The shapes do not fit, a class is missing, or no threshold satisfies the rule.
        """
        p = self.apply(_checked_features(features, len(self.feature_names)))
        right, known = _checked_correct(correct, len(p)), ~np.isnan(p)
        if right[known].all() or not right[known].any():
            raise InputError(
                f"a threshold needs correct and incorrect rows; of {len(p)} rows {right[known].sum()} are correct"
            )
        decided = {"threshold_rule": describe(rule), "threshold_rows": f"{int(known.sum())} further rows"}
        metadata = {
            "feature_names": list(self.feature_names),
            "model_fingerprint": self.model_fingerprint,
            "method": self.method,
            "threshold": rule.threshold(Ranking.of(p[known], right[known])),
            "summary": {**self.summary, **decided},
        }
        return self._of(saving.assemble(self.proto.graph, metadata), metadata)

    @classmethod
    def load(cls, path: str | Path) -> "Verdict":
        """Read a verdict file and check all its content before any of it runs.

        Raises
        ------
        ModelError
            The file is missing, damaged, or not a verdict of this schema version.
        """
        return cls._of(*saving.load(Path(path)))

    @classmethod
    def _of(cls, proto: onnx.ModelProto, metadata: Mapping[str, Any]) -> "Verdict":
        names = tuple(metadata["feature_names"])
        fingerprint, method = metadata["model_fingerprint"], metadata["method"]
        return cls(names, fingerprint, method, metadata["threshold"], metadata["summary"], proto)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the verdict as one ONNX file, by atomic rename.

        Raises
        ------
        OutputExistsError
            `path` exists and `overwrite` is False.
        """
        saving.save(self.proto, Path(path), overwrite=overwrite)

    @property
    def reference_sha256(self) -> str | None:
        """SHA-256 of the reference that the features' detectors compared with, or None."""
        return self.summary.get("reference_sha256")

    def apply(self, scores: ScoreTable | npt.ArrayLike) -> FloatArray:
        """Return P(correct), float64 [N].

        It is NaN for rows with an error, and if a feature is NaN or Inf.

        Raises
        ------
        MismatchError
            The table's features, scoring model or reference are not those of this verdict.
        InputError
            The array is not [N, F].
        """
        return self._run(scores, [OUTPUT])[0]

    def answers(self, scores: ScoreTable | npt.ArrayLike) -> Judgement:
        """Return P(right), P(known) and P(correct), each float64 [N]; errors and NaN as in `apply`.

        The first two are NaN for a verdict of schema version 1, which has P(correct) alone.
        """
        has_both = len(self.proto.graph.output) == len(VERDICT_OUTPUTS)
        correct, *both = self._run(scores, VERDICT_OUTPUTS if has_both else [OUTPUT])
        right, known = both or (np.full_like(correct, np.nan), np.full_like(correct, np.nan))
        return Judgement(right, known, correct)

    def _run(self, scores: ScoreTable | npt.ArrayLike, outputs: Sequence[str]) -> list[FloatArray]:
        if isinstance(scores, ScoreTable):
            require_same_features(self.feature_names, scores.feature_names, "the verdict", "the table")
            require_same_model(self.model_fingerprint, scores.model_fingerprint, "the verdict", "the table")
            if self.reference_sha256:
                require_same_reference(self.reference_sha256, scores.reference_sha256, "the verdict", "the table")
            rows = scores.features()
        else:
            rows = _checked_features(scores, len(self.feature_names))
        parts = [rows[start : start + ROWS_PER_RUN] for start in range(0, len(rows), ROWS_PER_RUN)]
        found = [self._session.run(list(outputs), {INPUT: part}) for part in parts]
        return [np.concatenate(part) for part in zip(*found, strict=True)] or [np.empty(0) for _ in outputs]

    def judge(self, scores: ScoreTable) -> pa.Table:
        """Return a table of id, label, label_name, the three probabilities, verdict, why and error.

        `verdict` is "accept" or "reject"; `why` says of a rejected row "looks wrong" or "looks unknown", whichever is more
        likely. If a row has no P(correct), its probabilities and verdict are null, and `error` gives the reason.

        Raises
        ------
        MismatchError
            The table's features, scoring model or reference are not those of this verdict.
        """
        answers = self.answers(scores)
        unjudged = np.isnan(answers.p_correct)
        accepted = answers.p_correct >= self.threshold
        columns = {name: scores.table.column(name) for name in ("id", "label", "label_name")}
        for name in ("p_right", "p_known", "p_correct"):
            p = getattr(answers, name)
            columns[name] = pa.array(p, pa.float64(), mask=np.isnan(p), from_pandas=False)
        columns["verdict"] = pa.array(np.where(accepted, "accept", "reject").tolist(), pa.string(), mask=unjudged)
        why = np.where(answers.p_known < answers.p_right, LOOKS_UNKNOWN, LOOKS_WRONG)
        untold = unjudged | accepted | np.isnan(answers.p_known)
        columns["why"] = pa.array(why.tolist(), pa.string(), mask=untold)
        columns["error"] = pa.array(self._errors(scores, unjudged), pa.string())
        return pa.table(columns)

    def _errors(self, scores: ScoreTable, unknown: npt.NDArray[np.bool_]) -> list[str | None]:
        errors = scores.errors()
        silent = [int(row) for row in np.flatnonzero(unknown) if errors[row] is None]
        if silent:
            broken = ~np.isfinite(scores.features())
            for row in silent:
                first = self.feature_names[int(np.argmax(broken[row]))]
                errors[row] = f"{int(broken[row].sum())} features are NaN or Inf, the first of them {first}"
        return errors

    @cached_property
    def _session(self) -> Any:
        return open_session(
            self.proto.SerializeToString(), threads=1
        )  # a second thread would not help, and would change the order of sums


def _rows(
    features: npt.ArrayLike,
    correct: npt.ArrayLike,
    names: tuple[str, ...],
    kind: npt.ArrayLike | None,
    label: npt.ArrayLike | None,
) -> tuple[LabelledRows, int]:
    """Check the arrays, and return the rows whose features are all finite, and the number of others."""
    checked = _checked_features(features, len(names))
    right = _checked_correct(correct, len(checked))
    kinds, labels = (_checked_numbers(given, len(checked), name) for given, name in ((kind, "kind"), (label, "label")))
    if impossible := int((right & (kinds != KNOWN)).sum()):
        raise InputError(
            f"{impossible} unknown inputs (kind 0 or more) are marked as correct: an unknown input never is"
        )
    finite = np.isfinite(checked).all(axis=1)
    rows = LabelledRows(checked[finite], names, right[finite], kinds[finite], labels[finite])
    return rows, int((~finite).sum())


def _checked_numbers(given: npt.ArrayLike | None, rows: int, name: str) -> npt.NDArray[np.int64]:
    numbers = np.full(rows, -1) if given is None else np.asarray(given)
    if numbers.shape != (rows,) or numbers.dtype.kind not in "iu":
        raise InputError(
            f"{name} must be int [{rows}], one number per row of features; got {numbers.dtype} {numbers.shape}"
        )
    return numbers.astype(np.int64)


def _checked_features(features: npt.ArrayLike, count: int) -> FloatArray:
    rows = np.ascontiguousarray(features, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != count:
        raise InputError(f"features must be [N, {count}] as the names are; got shape {rows.shape}")
    return rows


def _checked_correct(correct: npt.ArrayLike, rows: int) -> npt.NDArray[np.bool_]:
    right = np.asarray(correct)
    if right.shape != (rows,):
        raise InputError(f"correct must be [{rows}], one value per row of features; got shape {right.shape}")
    if right.dtype == np.bool_:
        return right
    if missing := sum(value not in (0, 1) for value in right.tolist()):
        raise InputError(
            f"{missing} of {rows} rows have no label that says whether the prediction is right; leave them out, or "
            "give their true classes (folder names, or --labels CSV)"
        )
    return right.astype(np.bool_)
