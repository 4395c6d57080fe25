"""A source scored into a table: read ahead, scored and written side by side, in bounded memory, and never half."""

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
_WORTHWHILE = 1.03  # a larger batch must be so much faster to be worth its memory


@dataclass(frozen=True)
class Summary:
    """What became of the inputs of a run.

    Attributes
    ----------
    failed
        Inputs that could not be read: rows with their `error` set.
    not_finite
        Scored rows whose features hold NaN or Inf, from the model's own arithmetic.
    resumed
        Rows among all these that an earlier run had finished.
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
        """Inputs that this run handled per second, decoding and writing included."""
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
    """Score every entry of a source into a score table; one row an entry, in the source's order.

    An `out` that ends in .parquet, .csv, .jsonl or .arrow becomes one file; any other a folder of Parquet shards.

    Parameters
    ----------
    shard_rows
        Rows of a shard, rounded up to whole batches: what is finished survives any end of the process.
    precision
        Of the features in the table: float64, or float32 for half the size, in which norms below 1e-38 are 0.
    resume
        Continue after the shards of a run of the same model, inputs and options; without one, start.
    progress
        Called after each batch with the number of inputs done in it.

    Raises
    ------
    OutputExistsError
        `out` exists, holds an unfinished run, or is being written by another process.
    MismatchError
        The run to continue had another model, other inputs or other options.
    InputError
        The model takes several inputs, which no source holds.
    GradscoreError
        `out` cannot be written; finished shards remain.
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
    """Return the source's rows as Arrow tables in order, for formats that are streamed and not kept."""
    _require_one_input(scorer)
    return ScoredTables(scorer, source, batch_size, precision)


class ScoredTables:
    """Tables of consecutive rows, computed as they are asked for; counts what became of the inputs."""

    def __init__(self, scorer: Scorer, source: Source, batch_size: int, precision: str) -> None:
        self.schema = features.schema(scorer.feature_names, {**table_metadata(scorer), "precision": precision})
        self._scorer, self._source, self._batch_size = scorer, source, batch_size
        self._tally, self._start = Tally(), time.perf_counter()

    def __iter__(self) -> Any:
        for batch in self._scorer.stream(self._source, batch_size=self._batch_size):
            self._tally += _tally(batch)
            yield pa.Table.from_batches([_rows(self.schema, batch)])

    def summary(self, output: str) -> Summary:
        """Return what became of the inputs so far."""
        counts, seconds = self._tally, time.perf_counter() - self._start
        scored = counts.rows - counts.failed
        return Summary(
            scored, counts.failed, counts.not_finite, seconds, output, counts.first_error, batch_size=self._batch_size
        )


def table_metadata(scorer: Scorer) -> dict[str, Any]:
    """Return what a score table says about the model and the machinery that wrote it."""
    model = scorer.metadata
    return {
        "model_fingerprint": scorer.fingerprint,
        "source_fingerprint": model.source_sha256,
        "class_names": [model.label_name(label) for label in range(model.classes)],
        "extra_features": list(scorer.extra_features),
        "backend": scorer.backend,
        "providers": list(scorer.providers),
        "gradscore_version": __version__,
    }


def run_identity(scorer: Scorer, source: Source, batch_size: int) -> dict[str, Any]:
    """Return everything that changes a run's rows; a run may continue only one of the same identity."""
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
    }


def fastest_batch_size(scorer: Scorer, source: Source) -> int:
    """Return the batch size that scores the source's first readable input, repeated, fastest on this machine.

    Sizes double until one brings nothing more, or does not fit: memory that runs out ends the search.

    Raises
    ------
    InputError
        None of the first inputs can be read.
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
    scorer.score(inputs)  # buffers for this size are made
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
