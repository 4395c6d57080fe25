"""Checks a self-scoring model before its file gets its name: valid ONNX, with the expected outputs."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from gradscore.errors import ModelError
from gradscore.fusing.tolerance import is_alike, is_close, scale_of
from gradscore.graph.checking import DRAWS
from gradscore.graph.nodes.probing import random_input
from gradscore.model.metadata import HEAD_FEATURES
from gradscore.model.model_file import read_metadata
from gradscore.model.selfscoring import SelfScoringMetadata
from gradscore.runtime.session import open_session
from gradscore.scoring.detector_columns import DETECTOR_COLUMNS
from gradscore.scoring.extra_features import features_with
from gradscore.scoring.scorer import Scorer
from gradscore.scoring.scores import Scores
from gradscore.verdict.learning.judge import Judgement
from gradscore.verdict.learning.verdict_nodes import VERDICT_OUTPUTS
from gradscore.verdict.model import Verdict

Reference = str | os.PathLike[str] | None  # the file of what detectors learned

_SAMPLES = 3
_Check = Callable[[NDArray[Any]], bool]  # tells whether an output is as expected


def check_fused(
    path: Path, scoring: Path, metadata: SelfScoringMetadata, verdict: Verdict | None, reference: Reference = None
) -> None:
    """Compare a written file with the scoring model, its kernels and the verdict, on random inputs.

    Near a kink, outputs may differ by rounding alone. Other inputs are tried then, as in `prepare`.

    Raises
    ------
    ModelError
        The file is not valid ONNX, or an output differs.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(
            f"the self-scoring model is invalid ({str(error).strip().splitlines()[0]}): please report it"
        ) from error
    differing: list[str] = []
    for draw in range(DRAWS):
        differing = _differing(path, scoring, metadata, verdict, draw, reference)
        if not differing:
            return
    if differing[0] in {metadata.added.get(name) for name in VERDICT_OUTPUTS}:
        raise ModelError(
            f"{differing[0]!r} of the self-scoring model differs from `gradscore apply`: the verdict relies on a feature that "
            "is rounding noise, for example a mean that is always zero: fit one without it (`gradscore fit --features`)"
        )
    raise ModelError(f"the self-scoring model's {differing[0]!r} differs from the scoring model's: please report it")


def _differing(
    path: Path, scoring: Path, metadata: SelfScoringMetadata, verdict: Verdict | None, draw: int, reference: Reference
) -> list[str]:
    """Return the outputs that differ from the expected ones, at one draw of random inputs."""
    batch = {item.name: random_input(item.shape, np.dtype(item.dtype), _SAMPLES, draw=draw) for item in metadata.inputs}
    checks = _checks(scoring, metadata, verdict, batch, reference)
    found = dict(zip(checks, open_session(path).run(list(checks), batch), strict=True))
    return [name for name, is_expected in checks.items() if not is_expected(found[name])]


def _checks(
    scoring: Path, metadata: SelfScoringMetadata, verdict: Verdict | None, batch: Mapping[str, NDArray[Any]], reference: Reference
) -> dict[str, _Check]:  # fmt: skip
    """Return a check for each output, those first that others follow from."""
    own = list(metadata.outputs)
    checks = {name: _like(values) for name, values in zip(own, open_session(scoring).run(own, batch), strict=True)}
    columns = (*metadata.used_features, *metadata.feature_names)
    detectors = [name for name in columns if name in DETECTOR_COLUMNS]
    extras = (*features_with(columns, read_metadata(scoring)), *detectors)
    with Scorer.load(scoring, features=extras, reference=reference) as scorer:
        scores = scorer.score(batch)
    added = metadata.added
    checks[added["label"]] = lambda found: np.array_equal(found, scores.label)
    checks |= {added[name]: _like(scores[name]) for name in HEAD_FEATURES}
    if metadata.feature_names:
        checks[added["features"]] = lambda found: _has_features(found, scores, metadata.feature_names)
    if verdict is not None:
        checks |= _checks_of_verdict(verdict, verdict.answers(_rows(verdict, scores, metadata)), added)
    return checks


def _checks_of_verdict(verdict: Verdict, answers: Judgement, added: Mapping[str, str]) -> dict[str, _Check]:
    """Return checks of probabilities and decisions; a decision may differ where two numbers are as good as equal."""
    checks = {added[name]: _like(getattr(answers, name)) for name in VERDICT_OUTPUTS if name in added}
    accepted = answers.p_correct >= verdict.threshold
    is_sure = ~is_close(answers.p_correct, verdict.threshold)
    checks[added["accept"]] = lambda found: np.array_equal(found[is_sure], accepted[is_sure])
    if "why" in added:
        looks = np.where(answers.p_known < answers.p_right, 2, 1)
        why = np.where(np.isnan(answers.p_correct), -1, np.where(accepted, 0, looks))
        is_told = is_sure & (accepted | ~is_close(answers.p_known, answers.p_right))
        checks[added["why"]] = lambda found: np.array_equal(found[is_told], why[is_told])
    return checks


def _rows(verdict: Verdict, scores: Scores, metadata: SelfScoringMetadata) -> NDArray[np.float64]:
    """Return the features that a verdict reads; all other features are 0."""
    rows = np.zeros((len(scores), len(verdict.feature_names)))
    for name in metadata.used_features:
        rows[:, verdict.feature_names.index(name)] = scores[name]
    return rows


def _has_features(found: NDArray[Any], scores: Scores, names: tuple[str, ...]) -> bool:
    return all(
        is_alike(found[:, column], scores[name], scale=scale_of(name, scores)) for column, name in enumerate(names)
    )


def _like(expected: NDArray[Any]) -> _Check:
    return lambda found: is_alike(found, expected)
