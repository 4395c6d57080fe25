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

CLASS_NAMES_KEY = "gradscore.class_names"  # left in a classifier by `export_classifier`
FORMAT_VERSION = 2
_READ_VERSIONS = (1, FORMAT_VERSION)  # the first knew no backsteps
LAYER_STATISTICS = ("l1", "l2", "min", "max", "mean", "std", "skewness", "kurtosis")
HEAD_FEATURES = ("entropy", "max_softmax", "residual")
ALL_LAYERS = "all"
ACTIVATION = "activation"  # of `<layer>.activation.<statistic>`, an extra feature
SIGNAL_LABEL = "gradscore/label"
SEED_RULE = "seed"  # in a file, names of the values that make the seed of back-propagation begin with it
SIGNAL_FEATURES = "gradscore/features"
SCALED_STATISTICS = ("l1", "l2", "min", "max", "mean", "std")  # by the residual; the others do not depend on it


@dataclass(frozen=True)
class ModelMetadata:
    """Everything that a scoring model carries beside its graph.

    Attributes
    ----------
    signal_bytes
        What the model puts out for one sample.
    one_at_a_time
        A parameter's gradient comes out summed over the batch, so each batch must hold one sample.
    weights_file, weights_sha256
        The file beside the model that holds its large weights, and what that file is; empty where there is none.
    backsteps
        Signals that the kernels compute before any reduction, in this order.
    outputs, dropped_outputs
        The classifier's own outputs, in its order: those that the scoring model still has, and those that it cannot have.
    seed
        The signal that starts back-propagation, δ of the logits themselves, if a layer's kernel reads it; else empty. It
        is not written: a file says it by the signal's name.
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
        """Names of the signals that the kernels read, each once; those that backsteps compute are among them."""
        return read_signals(self.layers, self.backsteps)

    @property
    def unread_outputs(self) -> frozenset[str]:
        """Those of the classifier's own outputs that no feature needs."""
        return unread_outputs(self.outputs, self.logits, self.read_values)

    @property
    def constants(self) -> frozenset[str]:
        """Outputs that are the same for every batch, and have no batch axis."""
        return constant_signals(self.backsteps)

    def label_name(self, label: int) -> str:
        """Return the class name of a predicted label; its number where the model has no names."""
        return self.class_names[label] if self.class_names else str(label)

    def to_json(self) -> str:
        """Serialise to the text stored under `METADATA_KEY`."""
        written = {name: value for name, value in asdict(self).items() if name != "seed"}
        return json.dumps(written, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "ModelMetadata":
        """Parse what `to_json` wrote; `where` names the file in errors."""
        try:
            raw = json.loads(text)
            if raw.get("kind") == FileKind.VERDICT:
                raise ModelError(f"{where} is a verdict, not a scoring model: it goes to --verdict")
            if raw.get("kind") == FileKind.SELF_SCORING:
                raise ModelError(
                    f"{where} is a self-scoring model: onnxruntime alone runs it; here goes the scoring model that it was "
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
    """Return those of a classifier's own outputs that are neither among the signals that are read, nor the logits."""
    return frozenset(outputs) - {*read, logits, SIGNAL_LABEL}


def _seed_by_name(layers: Sequence[Layer]) -> str:
    """Find the seed among the signals of a file of format 1 or 2, which says it by the signal's name alone.

    This is the only place that reads a meaning out of a name.
    """
    named = {item.delta for layer in layers for item in layer.reductions if item.delta.startswith(f"{SEED_RULE}/")}
    return named.pop() if len(named) == 1 else ""
