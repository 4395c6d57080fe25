"""A source scored to one Parquet file: streamed in bounded memory, finished by atomic rename."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from gradscore import features
from gradscore.errors import InputError
from gradscore.scoring import ScoredBatch, Scorer
from gradscore.sources import Source
from gradscore.version import __version__
from gradscore.writing import refuse_existing, replacing


@dataclass(frozen=True)
class Summary:
    """What became of the inputs of a run.

    Attributes
    ----------
    failed
        Inputs that could not be read: rows with their `error` set.
    not_finite
        Scored rows whose features hold NaN or Inf, from the model's own arithmetic.
    """

    scored: int
    failed: int
    not_finite: int
    seconds: float
    output: str
    first_error: str | None = None

    @property
    def images_per_second(self) -> float:
        """Inputs handled per second, decoding and writing included."""
        return (self.scored + self.failed) / self.seconds if self.seconds > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as plain values for JSON."""
        return {**asdict(self), "images_per_second": self.images_per_second}


def score_to_parquet(
    scorer: Scorer,
    source: Source,
    out: str | os.PathLike[str],
    *,
    batch_size: int = 256,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Summary:
    """Score every entry of a source into a score table; one row an entry, in the source's order.

    Parameters
    ----------
    progress
        Called after each batch with the number of inputs done in it.

    Raises
    ------
    OutputExistsError
        `out` exists and `overwrite` is False.
    InputError
        The model takes several inputs, which no source holds.
    GradscoreError
        `out` cannot be written.
    """
    target = Path(out)
    if len(scorer.metadata.inputs) > 1:
        names = ", ".join(item.name for item in scorer.metadata.inputs)
        raise InputError(f"the model takes several inputs ({names}): score arrays with `Scorer.score` in Python")
    refuse_existing(target, overwrite=overwrite)
    schema = features.schema(scorer.feature_names, table_metadata(scorer))
    start = time.perf_counter()
    scored = failed = not_finite = 0
    first_error = None
    with replacing(target, overwrite=overwrite) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for batch in scorer.stream(source, batch_size=batch_size):
            writer.write_batch(_rows(schema, batch))
            good = np.array([error is None for error in batch.errors])
            scored, failed = scored + int(good.sum()), failed + int((~good).sum())
            not_finite += int((~np.isfinite(batch.scores.features[good]).all(axis=1)).sum())
            first_error = first_error or _first_error(batch)
            progress(len(batch.ids))
    return Summary(scored, failed, not_finite, time.perf_counter() - start, str(target), first_error)


def table_metadata(scorer: Scorer) -> dict[str, Any]:
    """Return what a score table says about the model and the machinery that wrote it."""
    model = scorer.metadata
    return {
        "model_fingerprint": scorer.fingerprint,
        "source_fingerprint": model.source_sha256,
        "class_names": [model.label_name(label) for label in range(model.classes)],
        "backend": scorer.backend,
        "providers": list(scorer.providers),
        "gradscore_version": __version__,
    }


def _rows(schema: Any, batch: ScoredBatch) -> Any:
    scores = batch.scores
    return features.to_batch(
        schema, ids=batch.ids, labels=scores.label, features=scores.features, errors=batch.errors
    )  # fmt: skip


def _first_error(batch: ScoredBatch) -> str | None:
    return next((f"{name}: {error}" for name, error in zip(batch.ids, batch.errors, strict=True) if error), None)
