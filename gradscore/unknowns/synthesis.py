"""Synthesis of unknown concepts: inputs of the model's shape that belong to no class.

Every prediction for them is wrong. They teach a verdict what unknown inputs look like if no real ones are available.
The same seed gives the same arrays. The kinds are in `kinds.py`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gradscore.errors import InputError
from gradscore.inputs.sources import Source
from gradscore.model.metadata import ModelMetadata
from gradscore.runs.scoring_run import table_metadata
from gradscore.scoring.scorer import Scorer
from gradscore.tables import table as features
from gradscore.tables.table import ScoreTable
from gradscore.unknowns.kinds import KINDS, Space, Takes

IntArray = NDArray[np.int64]

MOST_KNOWN = 1000  # known inputs to read
SQRT3 = float(np.sqrt(3))


@dataclass(frozen=True)
class Known:
    """Inputs of known concepts, [N, ...], uint8 pixels or floats, and the number of unreadable ones."""

    inputs: NDArray[Any]
    unreadable: int


def synthesise(
    kind: str,
    count: int,
    metadata: ModelMetadata,
    *,
    known: NDArray[Any] | None = None,
    labels: IntArray | None = None,
    seed: int = 0,
) -> NDArray[Any]:
    """Return inputs of unknown concepts for a model: uint8 pixels for image models, the model's own integers, or float32.

    Parameters
    ----------
    kind : str
        A key of `KINDS`.
    count : int
        Number of inputs.
    metadata : ModelMetadata
        Metadata of the scoring model.
    known : array [N, ...], optional
        Inputs of known concepts, from `read_known`. Noise needs none.
    labels : int [N], optional
        The model's predictions for the known inputs. Only "mixup" and "splice" need them.
    seed : int
        Seed. The same seed gives the same arrays.

    Returns
    -------
    array [count, ...]
        The inputs.

    Raises
    ------
    InputError
        The kind does not exist, needs known inputs, or does not suit the model; or the model does not take one input of
        floats or of token ids.
    """
    if kind not in KINDS:
        raise InputError(f"unknown kind {kind!r}; choose one of: {', '.join(KINDS)}")
    if count < 1:
        raise InputError(f"cannot make {count} inputs: give a positive number")
    rule, takes = KINDS[kind], _takes(metadata)
    if rule.needs_known and (known is None or not len(known)):
        raise InputError(f"{kind} is made from inputs of known classes: give some with --known, or choose uniform")
    if takes not in rule.suits:
        suiting = ", ".join(kinds_for(metadata))
        raise InputError(
            f"{kind} is made of {' or '.join(rule.suits)}, and this model takes {takes}: choose one of {suiting}"
        )
    rng = np.random.default_rng([seed, *kind.encode()])
    made = rule.make(_space(metadata, known, labels), count, rng).reshape(count, *_shape(metadata, known))
    dtype = {"pixels": "uint8", "numbers": "float32"}.get(takes, metadata.inputs[0].dtype)
    return made.astype(dtype) if takes == "numbers" else np.round(made).astype(dtype)


def kinds_for(metadata: ModelMetadata) -> tuple[str, ...]:
    """Return the kinds that suit a model, in the order of `KINDS`."""
    return tuple(kind for kind, rule in KINDS.items() if _takes(metadata) in rule.suits)


def read_known(source: Source, metadata: ModelMetadata, *, seed: int = 0) -> Known:
    """Read up to 1,000 random inputs of a source, as pixels or numbers.

    Raises
    ------
    InputError
        None of the inputs can be read, or they differ in shape.
    """
    order = np.sort(np.random.default_rng(seed).permutation(len(source))[:MOST_KNOWN])
    inputs, problems = [], []
    for index in order:
        try:
            inputs.append(_own_space(source.entries[index].read(metadata), metadata))
        except InputError as error:
            problems.append(f"{source.entries[index].id}: {error}")
    if not inputs:
        raise InputError(f"none of {len(order)} known inputs can be read; the first: {problems[0]}")
    if len({one.shape for one in inputs}) > 1:
        raise InputError("known inputs differ in shape: give inputs of one shape with --known")
    return Known(np.stack(inputs), len(problems))


def make_unknowns(
    scorer: Scorer, kind: str, count: int, *, known: NDArray[Any] | None = None, seed: int = 0
) -> NDArray[Any]:
    """Make inputs of unknown concepts for a scorer's model.

    The scorer predicts the classes of the known inputs.

    Raises
    ------
    InputError
        As for `synthesise`.
    """
    labels = None if known is None else scorer.score(known).label
    return synthesise(kind, count, scorer.metadata, known=known, labels=labels, seed=seed)


def score_unknowns(
    scorer: Scorer, kind: str, count: int, *, known: NDArray[Any] | None = None, seed: int = 0
) -> ScoreTable:
    """Make inputs of unknown concepts and return their score table. Their ids are `<kind>#<number>`.

    Parameters
    ----------
    scorer : Scorer
        The loaded scoring model.
    kind, count, known, seed
        As in `synthesise`.

    Raises
    ------
    InputError
        As for `synthesise`.
    """
    inputs = make_unknowns(scorer, kind, count, known=known, seed=seed)
    scores = scorer.score(inputs)
    schema = features.schema(scorer.feature_names, table_metadata(scorer))
    ids = [f"{kind}#{index}" for index in range(count)]
    batch = features.to_batch(schema, ids=ids, labels=scores.label, features=scores.features)
    return ScoreTable.of(pa.Table.from_batches([batch]))


def _own_space(array: NDArray[Any], metadata: ModelMetadata) -> NDArray[Any]:
    """Undo the preprocessing of an image. The pixels had 8 bits, so rounding restores them exactly."""
    preprocessing = metadata.preprocessing
    if preprocessing.kind != "image" or array.dtype == np.uint8:
        return array
    mean, std = (np.asarray(part, np.float64).reshape(-1, 1, 1) for part in (preprocessing.mean, preprocessing.std))
    return np.clip(np.round((array * std + mean) / preprocessing.scale), 0, 255).astype(np.uint8)


def _takes(metadata: ModelMetadata) -> Takes:
    one = metadata.inputs[0]
    is_float = one.dtype in ("float32", "float16", "float64")
    is_ids = one.dtype in ("int32", "int64") and len(one.shape) == 2
    if len(metadata.inputs) != 1 or not (is_float or is_ids):
        taken = ", ".join(f"{tensor.name} {tensor.dtype} {list(tensor.shape)}" for tensor in metadata.inputs)
        raise InputError(
            f"unknown concepts can be made for models of one float input, or one of ids; this one takes {taken}"
        )
    if is_ids:
        return "ids"
    return "pixels" if metadata.preprocessing.kind == "image" else "numbers"


def _shape(metadata: ModelMetadata, known: NDArray[Any] | None) -> tuple[int, ...]:
    shape = metadata.input_shape[1:]
    if known is not None and len(known):
        fits = len(shape) == known.ndim - 1 and all(a in (None, b) for a, b in zip(shape, known.shape[1:], strict=True))
        if not fits:
            raise InputError(f"known inputs of shape {list(known.shape[1:])} do not fit the model's {list(shape)}")
        return tuple(known.shape[1:])
    if any(extent is None for extent in shape):
        raise InputError(f"the model's input {list(shape)} has extents that vary: give inputs with --known")
    return tuple(extent for extent in shape if extent is not None)


def _space(metadata: ModelMetadata, known: NDArray[Any] | None, labels: IntArray | None) -> Space:
    shape, takes = _shape(metadata, known), _takes(metadata)
    image = takes == "pixels"
    samples = np.empty((0, *shape)) if known is None else known.astype(np.float64)
    axes = (0, 2, 3) if image else (0,)  # moments per channel, or per number
    low, high, mean, std = (0.0, 255.0, 127.5, 63.75) if image else (-SQRT3, SQRT3, 0.0, 1.0)  # uniform, variance 1
    if len(samples):
        mean, std = samples.mean(axis=axes, keepdims=True)[0], samples.std(axis=axes, keepdims=True)[0]
    if len(samples) and not image:
        low, high = samples.min(axis=0), samples.max(axis=0)
    return Space(
        shape=shape,
        low=np.asarray(low),
        high=np.asarray(high),
        mean=np.asarray(mean),
        std=np.asarray(std),
        known=samples,
        labels=np.empty(0, dtype=np.int64) if labels is None else labels,
        takes=takes,
    )
