"""Verdicts: meta-classifiers that read P(correct) from gradient features, as ONNX from the moment they are fitted."""

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
from gradscore.tables.table import ScoreTable, require_same_features, require_same_model
from gradscore.verdict import saving
from gradscore.verdict.learning import fitting
from gradscore.verdict.learning.estimators import Estimator, emit_mean
from gradscore.verdict.learning.settings import Settings
from gradscore.verdict.learning.thresholds import BALANCED, Rule, describe
from gradscore.verdict.learning.verdict_nodes import INPUT, OUTPUT, Emitter

FloatArray = npt.NDArray[np.float64]

ROWS_PER_RUN = 1024  # bounds memory: tree ensembles take some 6 kB a row, quantiles of 200 features some 50 kB


@dataclass(frozen=True, eq=False)
class Verdict:
    """A fitted meta-classifier: features of one scoring model in, P(correct) out.

    Attributes
    ----------
    feature_names : features that it takes, in order
    model_fingerprint : SHA-256 of the scoring model whose features they are
    method : a key of `METHODS`, or the class of the estimator given
    threshold : predictions with P(correct) at or above it are accepted
    summary : rows, classes, hyper-parameters, coefficients, notes, versions of the fit
    proto : the ONNX model, as saved
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
        method: str | Estimator = "lasso",
        transform: str = "signed-log",
        calibration: str = "none",
        select: Sequence[str] | None = None,
        folds: int = 5,
        ensemble: int = 1,
        seed: int = 0,
        rule: Rule = BALANCED,
    ) -> "Verdict":
        """Fit a meta-classifier to features whose predictions are known to be right or wrong.

        P(correct) is a probability under the training rows' mix of correct and incorrect ones. The threshold is set
        on rows held out by cross-validation.

        Parameters
        ----------
        features : float [N, F]
            Rows with NaN or Inf, as of inputs with an error, are left out and counted in the summary.
        correct : bool [N]
        feature_names : [F] names
        model_fingerprint : SHA-256 of the scoring model
        method : name in `METHODS`, or a scikit-learn classifier of a class in `EXPORTERS`
        transform : a key of `TRANSFORMS`, what features go through first
        calibration : "none", "platt" or "isotonic", learned from the rows held out by cross-validation
        select : patterns such as "fc.*" of the features to use; all by default
        folds : cross-validation for penalty and threshold; 0 for the default penalty and a threshold on training rows
        ensemble : classifiers with consecutive seeds to average, for `nn` and `boosting`
        seed : the same seed and rows give the same verdict
        rule : from `THRESHOLDS`, how the threshold is chosen; by default both classes weigh the same (equation 7)

        Raises
        ------
        InputError
            Where shapes do not fit, labels are missing, a class has too few rows, or all features are constant.
        """
        names = tuple(feature_names)
        rows = _checked_features(features, len(names))
        right = _checked_correct(correct, len(rows))
        settings = Settings(method, transform, calibration, select, folds, ensemble, seed, rule)
        fitted = fitting.fit(rows, right, names, settings)
        metadata = {
            "feature_names": list(names),
            "model_fingerprint": model_fingerprint,
            "method": method if isinstance(method, str) else type(method).__name__,
            "threshold": fitted.threshold,
            "summary": fitted.summary,
        }
        return cls._of(saving.assemble(_graph(fitted, len(names)), metadata), metadata)

    def decide_by(self, rule: Rule, features: npt.ArrayLike, correct: npt.ArrayLike) -> "Verdict":
        """Return this verdict with another threshold, chosen by a rule on further rows whose outcome is known.

        Rows whose features are not finite are left out. The conformal rules keep their promise only on rows that were
        not used in the fit.

        Raises
        ------
        InputError
            Where shapes do not fit, a class is missing, or the rule's target is out of reach.
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
        """Read a verdict file; everything in it is checked before it may run (ModelError)."""
        return cls._of(*saving.load(Path(path)))

    @classmethod
    def _of(cls, proto: onnx.ModelProto, metadata: Mapping[str, Any]) -> "Verdict":
        names = tuple(metadata["feature_names"])
        fingerprint, method = metadata["model_fingerprint"], metadata["method"]
        return cls(names, fingerprint, method, metadata["threshold"], metadata["summary"], proto)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one ONNX file, by atomic rename; OutputExistsError where the path is taken."""
        saving.save(self.proto, Path(path), overwrite=overwrite)

    def apply(self, scores: ScoreTable | npt.ArrayLike) -> FloatArray:
        """Return P(correct), float64 [N]; NaN for rows with an error and rows whose features hold NaN or Inf.

        Raises
        ------
        MismatchError
            Where a table's features or scoring model are not this verdict's.
        InputError
            Where an array is not [N, F].
        """
        if isinstance(scores, ScoreTable):
            require_same_features(self.feature_names, scores.feature_names, "the verdict", "the table")
            require_same_model(self.model_fingerprint, scores.model_fingerprint, "the verdict", "the table")
            rows = scores.features()
        else:
            rows = _checked_features(scores, len(self.feature_names))
        parts = [rows[start : start + ROWS_PER_RUN] for start in range(0, len(rows), ROWS_PER_RUN)]
        out = [self._session.run([OUTPUT], {INPUT: part})[0] for part in parts]
        return np.concatenate(out) if out else np.empty(0)

    def judge(self, scores: ScoreTable) -> pa.Table:
        """Return a table of id, label, label_name, p_correct, verdict ("accept" or "reject") and error.

        A row that cannot be judged has nulls and says why in `error`. Errors as for `apply`.
        """
        p = self.apply(scores)
        unknown = np.isnan(p)
        verdicts = np.where(p >= self.threshold, "accept", "reject")
        columns = {name: scores.table.column(name) for name in ("id", "label", "label_name")}
        columns["p_correct"] = pa.array(p, pa.float64(), mask=unknown, from_pandas=False)
        columns["verdict"] = pa.array(verdicts.tolist(), pa.string(), mask=unknown)
        columns["error"] = pa.array(self._errors(scores, unknown), pa.string())
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
        return open_session(self.proto.SerializeToString(), threads=1)  # microseconds of work; sums keep their order


def _graph(fitted: fitting.Fitted, feature_count: int) -> onnx.GraphProto:
    """Write transform, classifiers and calibration as one graph; 0·x is NaN where x is NaN or Inf, and 0 elsewhere."""
    emit = Emitter()
    mean = emit_mean(fitted.members, emit, fitted.transform.emit(emit, INPUT))
    p = fitted.calibration.emit(emit, mean)
    poison = emit("ReduceSum", emit("Mul", INPUT, np.float64(0.0)), np.array([1], dtype=np.int64), keepdims=0)
    return emit.graph(emit("Add", p, poison), feature_count)


def _checked_features(features: npt.ArrayLike, count: int) -> FloatArray:
    rows = np.ascontiguousarray(features, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != count:
        raise InputError(f"features must be [N, {count}] as the names are; got shape {rows.shape}")
    return rows


def _checked_correct(correct: npt.ArrayLike, rows: int) -> npt.NDArray[np.bool_]:
    right = np.asarray(correct)
    if right.shape != (rows,):
        raise InputError(f"correct must be [{rows}], one value a row of features; got shape {right.shape}")
    if right.dtype == np.bool_:
        return right
    if missing := sum(value not in (0, 1) for value in right.tolist()):
        raise InputError(
            f"{missing} of {rows} rows have no label that says whether the prediction is right; leave them out, or "
            "give their true classes (folder names, or --labels CSV)"
        )
    return right.astype(np.bool_)
