"""What a scoring model says about itself: the JSON in its `metadata_props`, as a typed record."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from gradscore.errors import ModelError
from gradscore.model.file_kinds import FileKind
from gradscore.model.json_records import as_fields
from gradscore.model.layer_table import (
    Backstep,
    Layer,
    Parameter,
    constant_signals,
    layer_of,
    parameter_of,
    read_signals,
)
from gradscore.model.preprocessing import InputTensor, Preprocessing

CLASS_NAMES_KEY = "gradscore.class_names"  # `export_classifier` leaves it in a classifier
FORMAT_VERSION = 2
_READ_VERSIONS = (1, FORMAT_VERSION)  # format 1 has no backsteps
LAYER_STATISTICS = ("l1", "l2", "min", "max", "mean", "std", "skewness", "kurtosis")
HEAD_FEATURES = ("entropy", "max_softmax", "residual")
ALL_LAYERS = "all"
ACTIVATION = "activation"  # of `<layer>.activation.<statistic>`, an extra feature
SIGNAL_LABEL = "gradscore/label"
SEED_RULE = "seed"  # first part of the names of values that make the seed of back-propagation
SIGNAL_FEATURES = "gradscore/features"
SIGNAL_EXTRA = "gradscore/extra"  # of `gradscore/extra/<feature>`, columns that a session computes itself
SCALED_STATISTICS = ("l1", "l2", "min", "max", "mean", "std")  # times the residual; others do not depend on it


@dataclass(frozen=True)
class ModelMetadata:
    """Everything that a scoring model holds besides its graph.

    Attributes
    ----------
    signal_bytes
        Bytes of the signals of one sample.
    one_at_a_time
        Whether each batch must hold one sample, because some gradient comes out summed over the batch.
    weights_file, weights_sha256
        The file beside the model that holds its large weights, and its SHA-256. Empty if there is none.
    backsteps
        Signals that the kernels compute before any reduction, in this order.
    outputs, dropped_outputs
        The classifier's own outputs that the scoring model has, and those that it cannot have, in the classifier's order.
    seed
        The signal that starts back-propagation, δ of the logits, if a layer's kernel reads it; else empty. It is not
        written to the file, because the signal's name there tells it.
    """

    source_sha256: str
    inputs: tuple[InputTensor, ...]
    logits: str
    classes: int
    layers: tuple[Layer, ...]
    backsteps: tuple[Backstep, ...] = ()
    class_names: tuple[str, ...] | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    uncovered: tuple[Parameter, ...] = ()
    engine: str = ""
    signal_bytes: int = 0
    one_at_a_time: bool = False
    outputs: tuple[str, ...] = ()
    dropped_outputs: tuple[str, ...] = ()
    weights_file: str = ""
    weights_sha256: str = ""
    gradscore_version: str = ""
    format_version: int = FORMAT_VERSION
    seed: str = ""

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of the first input."""
        return self.inputs[0].shape

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of all features in table order: layers in graph order, "all", then those of the head."""
        layers = [*(layer.name for layer in self.layers), ALL_LAYERS]
        return (*(f"{layer}.{statistic}" for layer in layers for statistic in LAYER_STATISTICS), *HEAD_FEATURES)

    @property
    def read_values(self) -> tuple[str, ...]:
        """Names of the signals that the kernels read, each once, including those that backsteps compute."""
        return read_signals(self.layers, self.backsteps)

    @property
    def unread_outputs(self) -> frozenset[str]:
        """The outputs of the classifier that no feature needs."""
        return unread_outputs(self.outputs, self.logits, self.read_values)

    @property
    def constants(self) -> frozenset[str]:
        """Names of the outputs that are the same for every batch. They have no batch axis."""
        return constant_signals(self.backsteps)

    def label_name(self, label: int) -> str:
        """Return the class name of a predicted label, or its number if the model has no names."""
        return self.class_names[label] if self.class_names else str(label)

    def to_json(self) -> str:
        """Serialise to the text stored under `METADATA_KEY`."""
        written = {name: value for name, value in asdict(self).items() if name != "seed"}
        return json.dumps(written, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "ModelMetadata":
        """Parse the text of `to_json`; `where` names the file in errors.

        Raises
        ------
        ModelError
            The text is damaged, of another format, or that of another kind of file.
        """
        try:
            raw = json.loads(text)
            if raw.get("kind") == FileKind.VERDICT:
                raise ModelError(f"{where} is a verdict, not a scoring model: pass it with --verdict")
            if raw.get("kind") == FileKind.SELF_SCORING:
                raise ModelError(
                    f"{where} is a self-scoring model, which onnxruntime alone runs: pass the scoring model that it was "
                    "fused from"
                )
            version = raw["format_version"]
            if version not in _READ_VERSIONS:
                raise ModelError(
                    f"{where} has scoring-model format {version}, this gradscore reads {FORMAT_VERSION}: "
                    "run `gradscore prepare` again on the classifier"
                )
            raw["inputs"] = tuple(InputTensor(**as_fields(tensor)) for tensor in raw["inputs"])
            raw["layers"] = tuple(layer_of(layer) for layer in raw["layers"])
            raw["backsteps"] = tuple(Backstep(**step) for step in raw.get("backsteps", ()))
            raw["uncovered"] = tuple(parameter_of(parameter) for parameter in raw["uncovered"])
            raw["preprocessing"] = Preprocessing(**as_fields(raw["preprocessing"]))
            return cls(**as_fields(raw | {"seed": _seed_by_name(raw["layers"])}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{where} has damaged gradscore metadata ({error}): prepare it again") from error


def unread_outputs(outputs: Sequence[str], logits: str, read: Sequence[str]) -> frozenset[str]:
    """Return the outputs of a classifier that are neither the logits nor signals that kernels read."""
    return frozenset(outputs) - {*read, logits, SIGNAL_LABEL}


def _seed_by_name(layers: Sequence[Layer]) -> str:
    """Find the seed by its name, because files of format 1 and 2 tell it in no other way.

    No other place derives a meaning from a name.
    """
    named = {item.delta for layer in layers for item in layer.reductions if item.delta.startswith(f"{SEED_RULE}/")}
    return named.pop() if len(named) == 1 else ""
