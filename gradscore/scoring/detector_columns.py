"""Detectors as extra features: each one is a column, computed from the logits and the inputs of layers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gradscore.detectors import DETECTORS, Detector, DetectorReference, LastLayer, Observations
from gradscore.detectors.traced import Emit
from gradscore.errors import InputError, MismatchError, ModelError
from gradscore.model.layer_inputs import WIDEST, Depth, chosen_depths, penultimate_of
from gradscore.model.metadata import HEAD_FEATURES, ModelMetadata
from gradscore.scoring.activations import Penultimate, pooled_means
from gradscore.scoring.extra_feature import ExtraFeature, FloatArray, Pass
from gradscore.scoring.last_layer import read_last_layer

OTHER_COLUMNS = frozenset((*HEAD_FEATURES, "max_logit", "energy", "gradnorm"))
"""Detectors that score tables have as columns in another way."""
DETECTOR_COLUMNS = tuple(name for name in DETECTORS if name not in OTHER_COLUMNS)
"""The detectors that `--features` takes."""


class DetectorColumn(ExtraFeature):
    """The confidence of one detector. Larger means more confident."""

    def __init__(self, detector: Detector, layer: LastLayer | None, reference: DetectorReference | None) -> None:
        self.name = detector.name
        self.detector = detector
        self.reads_layers = detector.reads_vector or detector.reads_head or detector.reads_pooled
        self._layer = layer
        self._arrays = reference.of(detector.name) if reference else None

    def columns(self, model: ModelMetadata) -> tuple[str, ...]:
        """Return the name; raise an error if the model cannot have it, or the reference does not fit."""
        self.detector.confidence(_nothing(model, self.detector), self._layer, self._arrays)
        return (self.name,)

    def compute(self, batch: Pass) -> FloatArray:
        """Return the confidence."""
        return self.detector.confidence(_observed(batch, self.detector), self._layer, self._arrays)[:, None]

    def emit(self, emit: Emit, given: Mapping[str, str], classes: int) -> str:
        """Append the nodes of the confidence, and return its name, double [N]."""
        return self.detector.emit(emit, given, classes, self._layer, self._arrays)


class Observed(ExtraFeature):
    """Everything that detectors read of a prediction, as columns: what a reference is learned from."""

    name = "observed"

    def columns(self, model: ModelMetadata) -> tuple[str, ...]:
        """Return `observed.<number>` for each number."""
        return tuple(f"{self.name}.{i}" for i in range(sum(_widths(model))))

    def compute(self, batch: Pass) -> FloatArray:
        """Return logits, vector and pooled inputs side by side."""
        seen = _observed(batch)
        vector = [] if seen.vector is None else [seen.vector]
        return np.concatenate([seen.logits, *vector, *seen.pooled.values()], axis=1)


def observations_of(values: FloatArray, label: NDArray[np.int64], model: ModelMetadata) -> Observations:
    """Return the predictions behind the columns of `Observed`."""
    parts = np.split(values, np.cumsum(_widths(model))[:-1], axis=1)
    logits, vector = parts[0], parts[1] if has_vector(model) else None
    names = [depth.layer for depth in depths_of(model)]
    return Observations(logits, label, vector, dict(zip(names, parts[len(parts) - len(names) :], strict=True)))


def detector_columns(
    names: Sequence[str], path: Path, model: ModelMetadata, fingerprint: str, reference: DetectorReference | None
) -> tuple[DetectorColumn, ...]:
    """Return the columns of the detectors with these names, each once, in the order of the table.

    Raises
    ------
    ModelError
        The model lacks something that a detector reads.
    InputError
        A detector needs a reference and has none.
    MismatchError
        The reference belongs to another model.
    """
    if reference and reference.model_fingerprint != fingerprint:
        raise MismatchError(
            f"the reference belongs to the scoring model {reference.model_fingerprint[:12]}…, and {path} is "
            f"{fingerprint[:12]}…: make another one with `gradscore reference {path} KNOWN_INPUTS`"
        )
    chosen = [one for name, one in DETECTORS.items() if name in names]
    needing = next((one.name for one in chosen if one.reads_head), None)
    layer = read_last_layer(path, model, needing) if needing else None
    return tuple(DetectorColumn(one, layer, _of(one, reference)) for one in chosen)


def has_vector(model: ModelMetadata) -> bool:
    """Tell whether one dense layer makes the logits."""
    try:
        penultimate_of(model, "")
    except ModelError:
        return False
    return True


def depths_of(model: ModelMetadata) -> tuple[Depth, ...]:
    """Return the layers whose inputs are pooled; none if the model has no such layer."""
    try:
        return chosen_depths(model)
    except ModelError:
        return ()


def _of(detector: Detector, reference: DetectorReference | None) -> DetectorReference | None:
    if detector.has_reference and reference and reference.of(detector.name) is None:
        raise InputError(
            f"the reference holds nothing for {detector.name}: make it again with `gradscore reference --features "
            f"{detector.name}`, or leave {detector.name} out of --features"
        )
    return reference


def _observed(batch: Pass, detector: Detector | None = None) -> Observations:
    """Return what a detector reads of a micro-batch, or everything."""
    vector, pooled = None, {}
    if detector is None or detector.reads_vector:
        vector = _vector(batch)
    if detector is None or detector.reads_pooled:
        pooled = {
            one.layer: pooled_means(batch.signals[one.value], one.channels_first) for one in depths_of(batch.model)
        }
    return Observations(batch.logits, batch.labels, vector, pooled)


def _vector(batch: Pass) -> FloatArray | None:
    if not has_vector(batch.model):
        return None
    _, last = penultimate_of(batch.model, "")
    return np.asarray(batch.signals[str(last.activation)], dtype=np.float64)


def _nothing(model: ModelMetadata, detector: Detector) -> Observations:
    """Return no predictions of a model, of the right widths; raise ModelError if it lacks what the detector reads."""
    if detector.reads_vector or detector.reads_head:
        penultimate_of(model, detector.name)
    if detector.reads_pooled:
        chosen_depths(model)
    empty = np.empty((0, sum(_widths(model))))
    return observations_of(empty, np.empty(0, dtype=np.int64), model)


def _widths(model: ModelMetadata) -> list[int]:
    """Return the number of logits, that of the vector's numbers, and those of the pooled inputs."""
    vector = [len(Penultimate().columns(model))] if has_vector(model) else []
    return [model.classes, *vector, *(min(one.width, WIDEST) for one in depths_of(model))]
