"""What a scoring model says about itself: the JSON in its `metadata_props`, as typed records.

Read without the onnx package: a session hands out the metadata of the model that it has loaded.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gradscore.errors import ModelError
from gradscore.model.file_kinds import FileKind

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

Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]


@dataclass(frozen=True)
class Reduction:
    """One kernel call: which graph values hold the layer's input a and output gradient δ, and how they combine.

    Attributes
    ----------
    kernel
        Its name in `gradscore_kernels.KERNELS`.
    activation, delta
        Names of graph values; `activation` is None where the kernel needs δ alone.
    attributes
        For convolutions: kernel, strides, dilations, pads, groups. For embeddings: vocabulary. For dense layers:
        outputs_first, how the weight stands.
    pooled
        What a max pool chose from, where δ is known behind the pool only.
    """

    kernel: str
    delta: str
    activation: str | None = None
    attributes: Mapping[str, Any] | None = None
    pooled: str | None = None

    @property
    def values(self) -> tuple[str, ...]:
        """Names of all graph values that the kernel reads."""
        return tuple(name for name in (self.activation, self.delta, self.pooled) if name is not None)


@dataclass(frozen=True)
class Backstep:
    """A signal that the graph leaves to the kernels: δ passed back through a convolution between a max pool and an activation.

    Attributes
    ----------
    name
        What reductions, and other backsteps, call the signal.
    delta, pooled, activation
        δ behind the pool, what the pool chose from, and the convolution's input, which the activation made.
    weight
        The convolution's weight, which the graph puts out without a batch axis.
    attributes
        geometry of the convolution, pool, and the activation's slope at 0 and below.
    """

    name: str
    delta: str
    pooled: str
    activation: str
    weight: str
    attributes: Mapping[str, Any]

    @property
    def values(self) -> tuple[str, ...]:
        """Names of all signals that the kernel reads."""
        return (self.delta, self.pooled, self.activation, self.weight)


@dataclass(frozen=True)
class Parameter:
    """One learned tensor, and how its gradient's statistics are found."""

    name: str
    shape: tuple[int, ...]
    coverage: str

    @property
    def count(self) -> int:
        """Number of weights."""
        product = 1
        for extent in self.shape:
            product *= extent
        return product


@dataclass(frozen=True)
class Layer:
    """A layer with weights: its parameters, and the reductions whose merged moments are its statistics."""

    name: str
    op: str
    parameters: tuple[Parameter, ...]
    reductions: tuple[Reduction, ...]


@dataclass(frozen=True)
class InputTensor:
    """One input of the model; None stands for an extent that may vary, the first for the batch."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Preprocessing:
    """How uint8 pixels become the model's input: x = (pixel · scale − mean) / std, per channel.

    Attributes
    ----------
    kind
        "image" for inputs [B, C, H, W]; "array" for any other input, taken as it is.
    color
        "strict": an image of another channel count is an error row; "convert": Pillow converts it.
    resize, crop
        How an image of any size gets the model's: `resize` is (), the shorter side alone, or height and width. Without
        a crop every image takes the model's size, whatever its aspect; "center" cuts that out of the resized image.
    interpolation
        Of the resizing; antialiased, as Pillow and torchvision have it.
    """

    kind: Literal["image", "array"] = "array"
    channels: int = 0
    height: int = 0
    width: int = 0
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    color: Literal["strict", "convert"] = "strict"
    resize: tuple[int, ...] = ()
    crop: Literal["none", "center"] = "none"
    interpolation: Interpolation = "bilinear"


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
            raw["inputs"] = tuple(InputTensor(**_tuples(tensor)) for tensor in raw["inputs"])
            raw["layers"] = tuple(_layer(layer) for layer in raw["layers"])
            raw["backsteps"] = tuple(Backstep(**step) for step in raw.get("backsteps", ()))
            raw["uncovered"] = tuple(_parameter(parameter) for parameter in raw["uncovered"])
            raw["preprocessing"] = Preprocessing(**_tuples(raw["preprocessing"]))
            return cls(**_tuples(raw | {"seed": _seed_by_name(raw["layers"])}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{where} has damaged gradscore metadata ({error}): prepare it again") from error


def read_signals(layers: Sequence[Layer], backsteps: Sequence[Backstep]) -> tuple[str, ...]:
    """Return the names of the signals that the kernels read, each once; those that backsteps compute are among them."""
    of_backsteps = [name for step in backsteps for name in step.values]
    of_layers = [name for layer in layers for item in layer.reductions for name in item.values]
    return tuple(dict.fromkeys(of_backsteps + of_layers))


def unread_outputs(outputs: Sequence[str], logits: str, read: Sequence[str]) -> frozenset[str]:
    """Return those of a classifier's own outputs that are neither among the signals that are read, nor the logits."""
    return frozenset(outputs) - {*read, logits, SIGNAL_LABEL}


def constant_signals(backsteps: Sequence[Backstep]) -> frozenset[str]:
    """Return the signals that are the same for every batch, and have no batch axis."""
    return frozenset(step.weight for step in backsteps)


def _seed_by_name(layers: Sequence[Layer]) -> str:
    """Find the seed among the signals of a file of format 1 or 2, which says it by the signal's name alone.

    This is the only place that reads a meaning out of a name.
    """
    named = {item.delta for layer in layers for item in layer.reductions if item.delta.startswith(f"{SEED_RULE}/")}
    return named.pop() if len(named) == 1 else ""


def _tuples(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}


def _parameter(raw: Mapping[str, Any]) -> Parameter:
    return Parameter(**_tuples(raw))


def _layer(raw: Mapping[str, Any]) -> Layer:
    return Layer(
        name=raw["name"],
        op=raw["op"],
        parameters=tuple(_parameter(parameter) for parameter in raw["parameters"]),
        reductions=tuple(Reduction(**reduction) for reduction in raw["reductions"]),
    )
