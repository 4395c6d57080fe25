"""Checks a self-scoring model before its file gets its name: valid ONNX, with the expected outputs."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from gradscore.detectors import DETECTORS
from gradscore.errors import ModelError
from gradscore.graph.assemble.head_statistics import HEAD_NAMES
from gradscore.graph.checking import DRAWS
from gradscore.graph.nodes.probing import random_input
from gradscore.model.metadata import HEAD_FEATURES
from gradscore.model.selfscoring import SelfScoringMetadata
from gradscore.runtime.session import open_session
from gradscore.scoring.scorer import Scorer
from gradscore.scoring.scores import Scores
from gradscore.verdict.model import Verdict

Reference = str | os.PathLike[str] | None  # the file of what detectors learned

_RTOL = 1e-3
_SAMPLES = 3


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
    if differing == [metadata.added.get("p_correct")]:
        raise ModelError(
            "P(correct) of the self-scoring model differs from `gradscore apply`: the verdict relies on a feature that is "
            "rounding noise, for example a mean that is always zero: fit one without it (`gradscore fit --features`)"
        )
    raise ModelError(f"the self-scoring model's {differing[0]!r} differs from the scoring model's: please report it")


def _differing(
    path: Path, scoring: Path, metadata: SelfScoringMetadata, verdict: Verdict | None, draw: int, reference: Reference
) -> list[str]:
    """Return the outputs that differ from the expected ones, at one draw of random inputs."""
    batch = {item.name: random_input(item.shape, np.dtype(item.dtype), _SAMPLES, draw=draw) for item in metadata.inputs}
    expected = _expected(scoring, metadata, verdict, batch, reference)
    found = dict(zip(expected, open_session(path).run(list(expected), batch), strict=True))
    return [name for name, values in expected.items() if not _alike(found[name], values)]


def _expected(
    scoring: Path, metadata: SelfScoringMetadata, verdict: Verdict | None, batch: Mapping[str, NDArray[Any]], reference: Reference
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Return the expected outputs by name."""
    own = list(metadata.outputs)
    expected = dict(zip(own, open_session(scoring).run(own, batch), strict=True))
    others = (*HEAD_NAMES, *DETECTORS)
    extras = [name for name in metadata.used_features if name in others and name not in HEAD_FEATURES]
    with Scorer.load(scoring, features=extras, reference=reference) as scorer:
        scores = scorer.score(batch)
    expected |= {metadata.added[name]: scores[name] for name in HEAD_FEATURES}
    if verdict is not None:
        expected[metadata.added["p_correct"]] = _applied(verdict, scores, metadata.used_features)
    return expected


def _applied(verdict: Verdict, scores: Scores, used: tuple[str, ...]) -> NDArray[np.float64]:
    """Apply a verdict to the features that it reads; all other features are 0."""
    rows = np.zeros((len(scores), len(verdict.feature_names)))
    for name in used:
        rows[:, verdict.feature_names.index(name)] = scores[name]
    return verdict.apply(rows)


def _alike(actual: NDArray[Any], wanted: NDArray[Any]) -> bool:
    finite = np.abs(wanted[np.isfinite(wanted)]) if wanted.dtype.kind == "f" else np.abs(wanted)
    largest = float(finite.max(initial=0))
    return bool(np.allclose(actual, wanted, rtol=_RTOL, atol=_RTOL * largest, equal_nan=True))
