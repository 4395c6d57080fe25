"""Scoring a source into a table: reading, scoring and writing overlap, in bounded memory."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gradscore.errors import InputError
from gradscore.inputs.sources import Source
from gradscore.runs.shards import SHARD_ROWS, ShardedOutput, Tally
from gradscore.runtime.session import installed_runtimes
from gradscore.scoring.scorer import Scorer
from gradscore.scoring.scores import ScoredBatch
from gradscore.tables import table as features
from gradscore.tables.manifest import Manifest, listing_digest
from gradscore.version import __version__

_log = logging.getLogger(__name__)

BATCH_SIZE = 256
_CANDIDATES = (32, 64, 128, 256, 512, 1024)
_TRIAL_SECONDS = 0.3
_WORTHWHILE = 1.03  # a larger batch must be faster by this factor to be worth its memory


@dataclass(frozen=True)
class Summary:
    """The result of a scoring run.

    Attributes
    ----------
    scored
        Inputs that were scored.
    failed
        Inputs that could not be read. Their rows have `error` set.
    not_finite
        Scored rows whose features hold NaN or Inf, which come from the model's own arithmetic.
    seconds
        Duration of this run.
    output
        Path of the table.
    first_error
        Id and message of the first input that failed.
    resumed
        Rows, included in the counts above, that an earlier run had finished.
    batch_size
        Inputs in a batch.
    """

    scored: int
    failed: int
    not_finite: int
    seconds: float
    output: str
    first_error: str | None = None
    resumed: int = 0
    batch_size: int = BATCH_SIZE

    @property
    def images_per_second(self) -> float:
        """Inputs that this run processed per second, including decoding and writing."""
        return (self.scored + self.failed - self.resumed) / self.seconds if self.seconds > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as plain values for JSON."""
        return {**asdict(self), "images_per_second": self.images_per_second}


def score_to_parquet(
    scorer: Scorer,
    source: Source,
    out: str | os.PathLike[str],
    *,
    batch_size: int = BATCH_SIZE,
    shard_rows: int = SHARD_ROWS,
    precision: str = "float64",
    overwrite: bool = False,
    resume: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Summary:
    """Score every entry of a source into a score table, one row each, in order.

    Parameters
    ----------
    scorer
        The loaded scoring model.
    source
        The inputs.
    out
        Path of the table. If it ends in .parquet, .csv, .jsonl or .arrow, it becomes one file. Any other path becomes a
        folder of Parquet shards.
    batch_size
        Inputs in a batch.
    shard_rows
        Rows in a shard, rounded up to whole batches. A finished shard survives any end of the process.
    precision
        Type of the features in the table: float64, or float32 for half the size. In float32, norms below 1e-38 are 0.
    overwrite
        Replace an existing output.
    resume
        Continue an unfinished run of the same model, inputs and options. If there is none, start one.
    progress
        Called after each batch with the number of inputs in it.

    Returns
    -------
    Summary
        Counts of the inputs scored and failed, and the run's duration.

    Raises
    ------
    OutputExistsError
        `out` exists, holds an unfinished run, or is being written by another process.
    MismatchError
        The run to continue had another model, other inputs or other options.
    InputError
        The model takes several inputs, and a source holds only one.
    GradscoreError
        `out` cannot be written. Finished shards remain.
    """
    _require_one_input(scorer)
    start = time.perf_counter()
    schema = features.schema(scorer.feature_names, {**table_metadata(scorer), "precision": precision})
    identity = {**run_identity(scorer, source, batch_size), "precision": precision}
    output = ShardedOutput(
        Path(out), schema, identity, overwrite=overwrite, resume=resume, shard_rows=shard_rows
    )  # fmt: skip
    with output:
        resumed = output.rows
        _log.info("scoring %d inputs into %s, %d of them done by an earlier run", len(source), out, resumed)
        progress(resumed)
        with closing(scorer.stream(source.entries[resumed:], batch_size=batch_size)) as batches:
            for batch in batches:
                output.add(_rows(schema, batch), _tally(batch))
                progress(len(batch.ids))
        output.finish()
    summary = _summary(output.manifest, time.perf_counter() - start, str(out), resumed, batch_size)
    _log.info("%s: %d inputs scored, %d failed, %.2f s", out, summary.scored, summary.failed, summary.seconds)
    return summary


def scored_tables(
    scorer: Scorer, source: Source, *, batch_size: int = BATCH_SIZE, precision: str = "float64"
) -> "ScoredTables":
    """Return the source's rows as Arrow tables in order, for streamed output."""
    _require_one_input(scorer)
    return ScoredTables(scorer, source, batch_size, precision)


class ScoredTables:
    """Tables of consecutive rows, computed on demand. It also counts the inputs scored and failed."""

    def __init__(self, scorer: Scorer, source: Source, batch_size: int, precision: str) -> None:
        self.schema = features.schema(scorer.feature_names, {**table_metadata(scorer), "precision": precision})
        self._scorer, self._source, self._batch_size = scorer, source, batch_size
        self._tally, self._start = Tally(), time.perf_counter()

    def __iter__(self) -> Any:
        for batch in self._scorer.stream(self._source, batch_size=self._batch_size):
            self._tally += _tally(batch)
            yield pa.Table.from_batches([_rows(self.schema, batch)])

    def summary(self, output: str) -> Summary:
        """Return the summary of the inputs so far."""
        counts, seconds = self._tally, time.perf_counter() - self._start
        scored = counts.rows - counts.failed
        return Summary(
            scored, counts.failed, counts.not_finite, seconds, output, counts.first_error, batch_size=self._batch_size
        )


def table_metadata(scorer: Scorer) -> dict[str, Any]:
    """Return the metadata of a score table: model, back end, providers and version."""
    model = scorer.metadata
    return {
        "model_fingerprint": scorer.fingerprint,
        "source_fingerprint": model.source_sha256,
        "class_names": [model.label_name(label) for label in range(model.classes)],
        "extra_features": list(scorer.extra_features),
        "backend": scorer.backend,
        "providers": list(scorer.providers),
        "gradscore_version": __version__,
        **({"reference_sha256": scorer.reference_sha256} if scorer.reference_sha256 else {}),
    }


def run_identity(scorer: Scorer, source: Source, batch_size: int) -> dict[str, Any]:
    """Return everything that changes a run's rows.

    Only a run of the same identity can be resumed.
    """
    return {
        "model": scorer.fingerprint,
        "preprocessing": {key: _plain(value) for key, value in asdict(scorer.metadata.preprocessing).items()},
        "features": listing_digest(scorer.feature_names),
        "extra features": list(scorer.extra_features),
        "schema version": features.SCHEMA_VERSION,
        "gradscore": __version__,
        "runtime": " ".join(f"{name} {version(name)}" for name in installed_runtimes()),
        "backend": scorer.backend,
        "providers": list(scorer.providers),
        "batch size": batch_size,
        "inputs": len(source),
        "listing": listing_digest(source.ids()),
        **({"reference": scorer.reference_sha256} if scorer.reference_sha256 else {}),
    }


def fastest_batch_size(scorer: Scorer, source: Source) -> int:
    """Return the batch size that scores fastest on this machine, measured on the first readable input.

    The size doubles until a larger one is no faster, or does not fit into memory.

    Raises
    ------
    InputError
        None of the first 32 inputs can be read.
    """
    rows = next((row for row in map(scorer.read, _first(source)) if not isinstance(row, str)), None)
    if rows is None:
        raise InputError("--batch-size auto tries the first inputs, and none of these can be read: give a number")
    name, best, best_rate = scorer.metadata.inputs[0].name, _CANDIDATES[0], 0.0
    for size in _CANDIDATES:
        try:
            rate = _rate(scorer, {name: np.repeat(rows[None], size, axis=0)}, size)
        except MemoryError:
            break
        if rate < best_rate * _WORTHWHILE:
            break
        best, best_rate = size, rate
    return best


def _rate(scorer: Scorer, inputs: dict[str, Any], size: int) -> float:
    scorer.score(inputs)  # warm up: this allocates the buffers for the size
    start, rounds = time.perf_counter(), 0
    while time.perf_counter() - start < _TRIAL_SECONDS:
        scorer.score(inputs)
        rounds += 1
    return rounds * size / (time.perf_counter() - start)


def _first(source: Source) -> Sequence[Any]:
    return source.entries[: _CANDIDATES[0]]


def _require_one_input(scorer: Scorer) -> None:
    if len(scorer.metadata.inputs) > 1:
        names = ", ".join(item.name for item in scorer.metadata.inputs)
        raise InputError(f"the model takes several inputs ({names}): score arrays with `Scorer.score` in Python")


def _rows(schema: Any, batch: ScoredBatch) -> Any:
    scores = batch.scores
    return features.to_batch(
        schema, ids=batch.ids, labels=scores.label, features=scores.features, errors=batch.errors
    )  # fmt: skip


def _tally(batch: ScoredBatch) -> Tally:
    rows = len(batch.ids)
    not_finite = rows - int(np.isfinite(batch.scores.features).all(axis=1).sum())
    broken = [(name, error) for name, error in zip(batch.ids, batch.errors, strict=True) if error is not None]
    first = ": ".join(broken[0]) if broken else None
    return Tally(rows, len(broken), not_finite - len(broken), first)  # the features of a broken row are NaN


def _summary(manifest: Manifest, seconds: float, output: str, resumed: int, batch_size: int) -> Summary:
    counts = sum((Tally(s.rows, s.failed, s.not_finite, s.first_error) for s in manifest.shards), Tally())
    scored = counts.rows - counts.failed
    return Summary(scored, counts.failed, counts.not_finite, seconds, output, counts.first_error, resumed, batch_size)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
