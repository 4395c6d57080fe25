"""Known inputs -> the reference of detectors: one streaming pass, of which a bounded random sample is kept."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore.detectors import DETECTORS, DetectorReference, LastLayer, Observations
from gradscore.errors import InputError, ModelError
from gradscore.files.writing import refuse_existing
from gradscore.inputs.sources import Source
from gradscore.scoring.detector_columns import DETECTOR_COLUMNS, Observed, observations_of
from gradscore.scoring.last_layer import read_last_layer
from gradscore.scoring.scorer import Scorer

MOST_ROWS = 10_000
_SEED = 19
_CLOSE = 1e-3  # of the logits' size, by which W a + b may differ from them in the session's arithmetic

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Learned:
    """The result of a pass over known inputs.

    Attributes
    ----------
    rows
        Predictions that were learned from, a random sample of those that are right.
    right, wrong, failed
        Inputs that are predicted right (all, where no labels are given), wrong, and that could not be read.
    detectors
        Detectors that the file holds something for.
    left_out
        Detectors that the model cannot have, and why.
    """

    rows: int
    right: int
    wrong: int
    failed: int
    detectors: tuple[str, ...]
    left_out: dict[str, str]


def learn_reference(
    model: str | os.PathLike[str],
    source: Source,
    out: str | os.PathLike[str],
    *,
    features: Sequence[str] = (),
    truth: IntArray | None = None,
    providers: Sequence[str] | None = None,
    threads: int | None = None,
    batch_size: int = 256,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Learned:
    """Write what detectors learn from known inputs to a file.

    Parameters
    ----------
    model
        The scoring model.
    source
        Inputs of known classes, best those that the classifier was not trained on.
    out
        The file to write, safetensors.
    features
        Names of detectors. Default: all that need a reference and that the model can have.
    truth
        True class of each input, int64 [N], in the source's order. Wrong predictions are then left out.
    providers, threads, batch_size
        As for scoring.
    overwrite
        Replace `out` if it exists.
    progress
        Called after each batch with the number of inputs in it.

    Raises
    ------
    ModelError
        `model` is not a scoring model, or it cannot have one of the detectors in `features`.
    InputError
        A name is no detector that needs a reference, or no input is readable and right.
    OutputExistsError
        `out` exists and `overwrite` is False.
    """
    names = _chosen(features)
    refuse_existing(Path(out), overwrite=overwrite)
    with Scorer.load(model, features=[Observed()], providers=providers, threads=threads) as scorer:
        sample = _observe(scorer, source, truth, batch_size, progress)
        if not len(sample.values):
            raise InputError(
                f"none of {len(source):,} known inputs could be read and is predicted right: nothing to learn"
            )
        known = observations_of(sample.values, sample.label, scorer.metadata)
        arrays, left_out = _learn(known, names, Path(model), scorer, strict=bool(features))
        reference = DetectorReference(arrays, scorer.fingerprint, len(known))
    reference.save(out, overwrite=overwrite)
    return Learned(len(known), sample.right, sample.wrong, sample.failed, tuple(arrays), left_out)


@dataclass
class _Sample:
    """A random sample of the rows that went by: those with the smallest keys, which are drawn one a row."""

    rng: Any = field(default_factory=lambda: np.random.default_rng(_SEED))
    keys: FloatArray = field(default_factory=lambda: np.empty(0))
    values: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    label: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    right: int = 0
    wrong: int = 0
    failed: int = 0

    def add(self, values: FloatArray, label: IntArray, truth: IntArray | None) -> None:
        """Add the rows of a batch that are right."""
        readable = label >= 0
        right = readable & np.isfinite(values).all(axis=1) & (True if truth is None else label == truth)
        self.failed += int((~readable).sum())
        self.right += int(right.sum())
        self.wrong += int((readable & ~right).sum())
        keys = np.concatenate([self.keys, self.rng.random(len(label))[right]])
        kept = np.sort(np.argsort(keys, kind="stable")[:MOST_ROWS])  # in the source's order
        self.keys = keys[kept]
        self.values = np.concatenate([self.values.reshape(-1, values.shape[1]), values[right]])[kept]
        self.label = np.concatenate([self.label, label[right]])[kept]


def _observe(
    scorer: Scorer, source: Source, truth: IntArray | None, batch_size: int, progress: Callable[[int], None]
) -> _Sample:
    """Run the model over the source."""
    sample, done = _Sample(), 0
    width = len(Observed().columns(scorer.metadata))
    with closing(scorer.stream(source, batch_size=batch_size)) as batches:
        for batch in batches:
            count = len(batch.ids)
            of_batch = None if truth is None else truth[done : done + count]
            sample.add(batch.scores.features[:, -width:], batch.scores.label, of_batch)
            done += count
            progress(count)
    return sample


def _chosen(features: Sequence[str]) -> list[str]:
    """Return the names of the detectors to learn for."""
    having = [name for name in DETECTOR_COLUMNS if DETECTORS[name].has_reference]
    if strange := [name for name in features if name not in having]:
        raise InputError(f"{strange[0]!r} is no detector with a reference: --features takes {', '.join(having)}")
    return [name for name in having if name in features] if features else having


def _learn(
    known: Observations, names: Sequence[str], model: Path, scorer: Scorer, *, strict: bool
) -> tuple[dict[str, dict[str, FloatArray]], dict[str, str]]:
    """Return the arrays of each detector, and why others have none; `strict` makes these an error."""
    arrays: dict[str, dict[str, FloatArray]] = {}
    left_out: dict[str, str] = {}
    layer = None
    for name in names:
        try:
            if DETECTORS[name].reads_head and layer is None:
                layer = _checked(read_last_layer(model, scorer.metadata, name), known, name)
            arrays[name] = DETECTORS[name].reference(known, layer)
        except ModelError as error:
            if strict:
                raise
            left_out[name] = str(error)
    return arrays, left_out


def _checked(layer: LastLayer, known: Observations, name: str) -> LastLayer:
    """Return the layer if it makes the logits of the known rows."""
    few = known.rows(slice(64))
    vector: Any = few.vector
    difference = np.abs(vector @ layer.weight.T + layer.bias - few.logits).max()
    if not difference <= _CLOSE * max(1.0, float(np.abs(few.logits).max())):
        raise ModelError(
            f"{name} needs logits that are W a + b of the last layer, and this model changes them after it: leave {name} out"
        )
    return layer
