"""What a detector is: a confidence computed from predictions, by arithmetic that also exists as ONNX nodes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradscore.detectors.arithmetic import Values
from gradscore.detectors.observations import FloatArray, LastLayer, Observations
from gradscore.detectors.traced import Emit, Traced
from gradscore.errors import InputError, ModelError

Arrays = Mapping[str, NDArray[np.float64]]
LOGITS, LABEL, VECTOR, POOLED = "logits", "label", "vector", "pooled/"
WIDEST = 2048  # numbers of a vector of which a detector keeps a matrix of all pairs


@dataclass(frozen=True)
class Seen:
    """The predictions as a formula takes them: arrays, or the values of a graph that is being emitted."""

    logits: Values
    label: Values
    vector: Values
    pooled: Mapping[str, Values]
    classes: int


class Detector(ABC):
    """A confidence: larger means that the prediction is more likely to be right, or its input to be known.

    Subclasses say what they read, and write `formula` once, for arrays and for nodes.
    """

    reads_vector: ClassVar[bool] = False
    reads_head: ClassVar[bool] = False
    reads_pooled: ClassVar[bool] = False
    shapes: ClassVar[Mapping[str, str]] = MappingProxyType(
        {}
    )  # of the arrays it learns: an axis q, D, 1, or any other letter
    keeps_pairs: ClassVar[bool] = False  # some of them hold a number for each pair of a vector's numbers

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def has_reference(self) -> bool:
        """Whether the detector learns arrays from known rows."""
        return bool(self.shapes)

    def reference(self, known: Observations, head: LastLayer | None = None) -> dict[str, FloatArray]:
        """Return the arrays that the detector learns from predictions that are right, on known inputs.

        Rows with NaN or infinity do not count.

        Raises
        ------
        ModelError
            The model lacks something that the detector reads, or its vectors are too long.
        InputError
            There are no rows, or the arrays do not fit one another.
        """
        self._check(known, head)
        if not self.has_reference:
            return {}
        finite = known.finite()
        if not len(finite):
            raise InputError(
                f"{self.name} learns what is usual from known inputs, and there are none with finite values"
            )
        return {name: np.ascontiguousarray(one, dtype=np.float64) for name, one in self.learned(finite, head).items()}

    def confidence(
        self, batch: Observations, head: LastLayer | None = None, reference: Arrays | None = None
    ) -> FloatArray:
        """Return the confidence of each prediction, float64 [N]. A row with NaN has NaN; others do not change.

        Raises
        ------
        ModelError
            The model lacks something that the detector reads.
        InputError
            The reference is missing, or the arrays do not fit one another.
        """
        self._check(batch, head)
        self._require(reference, batch)
        with np.errstate(all="ignore"):  # NaN, infinite and huge values give NaN, in their own row
            seen = Seen(batch.logits, batch.label, batch.vector, batch.pooled, batch.classes)
            return np.asarray(self.formula(seen, head, reference or {}), dtype=np.float64)

    def emit(
        self,
        emit: Emit,
        given: Mapping[str, str],
        classes: int,
        head: LastLayer | None = None,
        reference: Arrays | None = None,
    ) -> str:
        """Append the nodes of the confidence and return its name, double [N].

        Parameters
        ----------
        emit
            Appends a node and returns the name of its output.
        given
            Names of the values `logits` (double [N, q]), `label` (int64 [N]), `vector` (double [N, D]) and
            `pooled/<layer>` (double [N, C]), as far as the detector reads them.
        classes
            Number of classes q.
        head, reference
            As for `confidence`. They become constants.
        """
        self._require(reference)
        values = {name: Traced(emit, value) for name, value in given.items()}
        pooled = {name.removeprefix(POOLED): one for name, one in values.items() if name.startswith(POOLED)}
        seen = Seen(values[LOGITS], values[LABEL], values.get(VECTOR), pooled, classes)
        return str(self.formula(seen, head, reference or {}).name)

    @abstractmethod
    def formula(self, seen: Seen, head: Any, reference: Arrays) -> Values:
        """Return the confidence [N]."""

    def learned(self, known: Observations, head: Any) -> Arrays:
        """Return the arrays that `formula` takes as its reference, from finite rows."""
        raise NotImplementedError(f"{self.name} has no reference")  # only called where has_reference

    def misshapen(self, arrays: Arrays, sizes: dict[str, int]) -> str | None:
        """Return what does not fit in a reference's arrays, in words, or None. `sizes` of axes gains those that it finds."""
        if set(arrays) != set(self.shapes):
            return f"it has the arrays {', '.join(sorted(arrays))}, not {', '.join(sorted(self.shapes))}"
        for name, axes in self.shapes.items():
            shape = arrays[name].shape
            wanted = [
                1 if axis == "1" else sizes.setdefault(axis, extent) for axis, extent in zip(axes, shape, strict=False)
            ]
            if len(shape) != len(axes) or list(shape) != wanted or 0 in shape:
                return f"its array {name} has the shape {shape}, not [{', '.join(axes)}] with {sizes}"
        return None

    def missing(self, *, vector: bool, pooled: bool) -> str | None:
        """Return what the detector reads and a model lacks, in words, or None."""
        if (self.reads_vector or self.reads_head) and not vector:
            return "one dense layer, at one position, that makes the logits"
        if self.reads_pooled and not pooled:
            return "layers that multiply their input with weights"
        return None

    def _check(self, seen: Observations, head: LastLayer | None) -> None:
        lacks = self.missing(vector=seen.vector is not None, pooled=bool(seen.pooled))
        if lacks or (self.reads_head and head is None):
            raise ModelError(f"{self.name} needs {lacks or self.missing(vector=False, pooled=True)}: leave it out")
        seen.check()
        if seen.vector is None or not self.reads_vector:
            return
        width = seen.vector.shape[1]
        if self.keeps_pairs and width > WIDEST:
            raise ModelError(
                f"{self.name} keeps a matrix over all pairs of the vector's numbers, of which this model has {width:,}; the "
                f"limit is {WIDEST:,}. Leave it out, or take mahalanobis_layers, which pools"
            )
        if self.reads_head and head is not None and head.weight.shape != (seen.classes, width):
            raise InputError(
                f"the head's weight {head.weight.shape} does not fit {seen.classes} classes and {width} numbers"
            )

    def _require(self, reference: Arrays | None, batch: Observations | None = None) -> None:
        if self.has_reference and not reference:
            raise InputError(
                f"{self.name} compares with known inputs and has no reference: `gradscore reference MODEL KNOWN_INPUTS -o "
                "reference.safetensors` makes one; pass it with --reference"
            )
        if reference and batch is not None:
            sizes = {"q": batch.classes, **({} if batch.vector is None else {"D": batch.vector.shape[1]})}
            if problem := self.misshapen(reference, sizes):
                raise InputError(f"{self.name}: the reference does not fit the model: {problem}")
