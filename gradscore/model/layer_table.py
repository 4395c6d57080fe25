"""A scoring model's layers as typed records: their parameters, and which kernels read which signals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradscore.model.json_records import as_fields


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


def read_signals(layers: Sequence[Layer], backsteps: Sequence[Backstep]) -> tuple[str, ...]:
    """Return the names of the signals that the kernels read, each once, including those that backsteps compute."""
    of_backsteps = [name for step in backsteps for name in step.values]
    of_layers = [name for layer in layers for item in layer.reductions for name in item.values]
    return tuple(dict.fromkeys(of_backsteps + of_layers))


def constant_signals(backsteps: Sequence[Backstep]) -> frozenset[str]:
    """Return the names of the signals that are the same for every batch. They have no batch axis."""
    return frozenset(step.weight for step in backsteps)


def parameter_of(raw: Mapping[str, Any]) -> Parameter:
    """Make the record of a JSON object."""
    return Parameter(**as_fields(raw))


def layer_of(raw: Mapping[str, Any]) -> Layer:
    """Make the record of a JSON object, with all that it holds."""
    return Layer(
        name=raw["name"],
        op=raw["op"],
        parameters=tuple(parameter_of(parameter) for parameter in raw["parameters"]),
        reductions=tuple(Reduction(**reduction) for reduction in raw["reductions"]),
    )
