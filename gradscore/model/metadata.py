"""The metadata of a scoring model: the JSON in its `metadata_props`, as typed records.

Nothing here needs the onnx package.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gradscore.errors import ModelError
from gradscore.model.file_kinds import FileKind

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
SCALED_STATISTICS = ("l1", "l2", "min", "max", "mean", "std")  # times the residual; others do not depend on it

Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]


@dataclass(frozen=True)
class Reduction:
    """One kernel call: the graph values that hold the layer's input a and output gradient δ, and how they combine.

    Attributes
    ----------
    kernel
        Its name in `gradscore_kernels.KERNELS`.
    activation, delta
        Names of graph values; `activation` is None where the kernel needs δ alone.
    attributes
        For convolutions: kernel, strides, dilations, pads, groups. For embeddings: vocabulary. For dense layers:
        outputs_first, whether the outputs are the weight's first axis.
    pooled
        The input of a max pool, where δ is known only behind the pool.
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
    """A signal that a kernel computes: δ passed back through a convolution between a max pool and an activation.

    Attributes
    ----------
    name
        The name of the signal in reductions and other backsteps.
    delta, pooled, activation
        δ behind the max pool, the input of the max pool, and the convolution's input, which the activation made.
    weight
        The convolution's weight, an output of the graph without a batch axis.
    attributes
        `geometry` of the convolution, `pool`, and `slope` of the activation at 0 and below.
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
    """One learned tensor, and how the statistics of its gradient are computed."""

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
    """A layer with weights: its parameters, and the reductions whose merged accumulators give its statistics."""

    name: str
    op: str
    parameters: tuple[Parameter, ...]
    reductions: tuple[Reduction, ...]


@dataclass(frozen=True)
class InputTensor:
    """One input of the model. An extent of None may vary; the first axis is the batch."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Preprocessing:
    """How uint8 pixels become the model's input: x = (pixel · scale − mean) / std, per channel.

    Attributes
    ----------
    kind
        "image" for inputs [B, C, H, W]; "array" for any other input, which is taken as it is.
    color
        "strict": an image with another number of channels is an error row; "convert": Pillow converts it.
    resize, crop
        How an image of any size gets the model's size in pixels. `resize` is (), the shorter side, or height and width.
        Without a crop every image is stretched to the model's size. "center" cuts the model's size out of the resized
        image.
    interpolation
        The filter for resizing, antialiased as in Pillow and torchvision.
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
            raw["inputs"] = tuple(InputTensor(**_tuples(tensor)) for tensor in raw["inputs"])
            raw["layers"] = tuple(_layer(layer) for layer in raw["layers"])
            raw["backsteps"] = tuple(Backstep(**step) for step in raw.get("backsteps", ()))
            raw["uncovered"] = tuple(_parameter(parameter) for parameter in raw["uncovered"])
            raw["preprocessing"] = Preprocessing(**_tuples(raw["preprocessing"]))
            return cls(**_tuples(raw | {"seed": _seed_by_name(raw["layers"])}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{where} has damaged gradscore metadata ({error}): prepare it again") from error


def read_signals(layers: Sequence[Layer], backsteps: Sequence[Backstep]) -> tuple[str, ...]:
    """Return the names of the signals that the kernels read, each once, including those that backsteps compute."""
    of_backsteps = [name for step in backsteps for name in step.values]
    of_layers = [name for layer in layers for item in layer.reductions for name in item.values]
    return tuple(dict.fromkeys(of_backsteps + of_layers))


def unread_outputs(outputs: Sequence[str], logits: str, read: Sequence[str]) -> frozenset[str]:
    """Return the outputs of a classifier that are neither the logits nor signals that kernels read."""
    return frozenset(outputs) - {*read, logits, SIGNAL_LABEL}


def constant_signals(backsteps: Sequence[Backstep]) -> frozenset[str]:
    """Return the names of the signals that are the same for every batch. They have no batch axis."""
    return frozenset(step.weight for step in backsteps)


def _seed_by_name(layers: Sequence[Layer]) -> str:
    """Find the seed by its name, because files of format 1 and 2 tell it in no other way.

    No other place derives a meaning from a name.
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
