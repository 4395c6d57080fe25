"""How a parameter's per-sample gradient follows from values of the graph.

A form is found in the normalised graph. Its `reduction` is called on the differentiated graph, and may emit some nodes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from gradscore.errors import UnsupportedOpError
from gradscore.graph.nodes.emitter import Emitter, extents
from gradscore.graph.nodes.probing import BATCH, POSITIONS_FIRST
from gradscore.model.layer_table import Backstep, Reduction


@dataclass(frozen=True)
class Unpooled:
    """A gradient that the kernels unpool: the input of the max pool, and its geometry."""

    activation: ir.Value
    geometry: Mapping[str, Any]


@dataclass(frozen=True)
class Scope:
    """The differentiated graph; finds its values by their names in the normalised graph."""

    graph: ir.Graph
    values: Mapping[str, ir.Value]
    deltas: Mapping[str, ir.Value]
    unpooled: Mapping[str, Unpooled] = field(default_factory=dict)

    def value(self, old: ir.Value) -> ir.Value:
        """Return the counterpart of a value of the normalised graph."""
        return self.values[str(old.name)]

    def delta(self, old: ir.Value) -> ir.Value:
        """Return the gradient at a value of the normalised graph."""
        return self.deltas[str(old.name)]

    def emitter(self, rule: str, about: ir.Value) -> Emitter:
        """Return an emitter that appends nodes to the graph, named after a value."""
        return Emitter(self.graph, rule, about=str(about.name))


@dataclass(frozen=True)
class PassedBack:
    """A gradient that the kernels compute: they unpool a convolution's δ and back-propagate it.

    `value` stands for the gradient and belongs to no graph. `activation` and `output` are the convolution's input and
    output.
    """

    value: ir.Value
    activation: ir.Value
    output: ir.Value
    weight: ir.Value
    geometry: Mapping[str, Any]
    slope: float

    def backstep(self, scope: Scope) -> Backstep:
        """Name the values that the kernel reads; an Identity lets the graph output the weight."""
        weight = scope.value(self.weight)
        shown = scope.emitter("Backstep", self.value)("Identity", weight)
        shown.shape, shown.type = weight.shape, weight.type
        source = scope.unpooled[str(self.output.name)]
        return Backstep(
            name=_name(self.value),
            delta=_name(scope.delta(self.output)),
            pooled=_name(source.activation),
            activation=_name(scope.value(self.activation)),
            weight=_name(shown),
            attributes={"geometry": self.geometry, "pool": source.geometry, "slope": self.slope},
        )


class Form(ABC):
    """How one parameter's gradient follows from graph values."""

    coverage: str

    @property
    @abstractmethod
    def outputs(self) -> tuple[ir.Value, ...]:
        """The values whose gradients δ are needed."""

    @abstractmethod
    def reduction(self, scope: Scope) -> Reduction:
        """Name the kernel and the values it reads."""


@dataclass(frozen=True)
class Convolution(Form):
    """G[m, c, k] = Σ_t δ[m, t] · a[c, receptive field of t at k], per group.

    For a transposed convolution, a and δ swap roles: each position of a is spread over a receptive field of δ.
    """

    activation: ir.Value
    output: ir.Value
    geometry: Mapping[str, Any]
    transposed: bool = False
    coverage = "tile kernel"

    @property
    def outputs(self) -> tuple[ir.Value, ...]:
        return (self.output,)

    def reduction(self, scope: Scope) -> Reduction:
        spread, at = scope.value(self.activation), scope.delta(self.output)
        if self.transposed:
            spread, at = at, spread
        if (source := scope.unpooled.get(str(self.output.name))) is not None:
            attributes = {"geometry": self.geometry, "pool": source.geometry}
            return Reduction("unpooled_conv", _name(at), _name(spread), attributes, pooled=_name(source.activation))
        return Reduction("conv", delta=_name(at), activation=_name(spread), attributes=self.geometry)


@dataclass(frozen=True)
class Dense(Form):
    """G = Σ_t δ_t a_tᵀ over all positions of all uses.

    One use at one position has a closed form. `outputs_first` says whether the weight is [m, n], outputs first, or
    [n, m]. No statistic depends on it.

    If several nodes share a weight, G is the sum over its uses, so their positions are concatenated.
    """

    uses: tuple[tuple[ir.Value, ir.Value], ...]
    outputs_first: bool = False

    @property
    def coverage(self) -> str:  # type: ignore[override]  # decided by rank
        """The kernel: the closed form for one position, else the tile kernel."""
        return "closed form" if self._one_position else "tile kernel"

    @property
    def outputs(self) -> tuple[ir.Value, ...]:
        return tuple(output for _, output in self.uses)

    @property
    def _one_position(self) -> bool:
        return len(self.uses) == 1 and _is_matrix(self.uses[0][0])

    def reduction(self, scope: Scope) -> Reduction:
        attributes = {"outputs_first": self.outputs_first}
        inputs = [scope.value(activation) for activation, _ in self.uses]
        deltas = [scope.delta(output) for output in self.outputs]
        if self._one_position:
            return Reduction("outer", _name(deltas[0]), _name(inputs[0]), attributes)
        return Reduction("sequence", _name(_positions(deltas, scope)), _name(_positions(inputs, scope)), attributes)


@dataclass(frozen=True)
class ChannelSum(Form):
    """G = Σ_t δ_t, channels first or last; the bias of a layer."""

    uses: tuple[ir.Value, ...]
    channels_last: bool
    coverage = "direct"

    @property
    def outputs(self) -> tuple[ir.Value, ...]:
        return self.uses

    def reduction(self, scope: Scope) -> Reduction:
        deltas = [scope.delta(output) for output in self.uses]
        kernel = "sequence_sum" if self.channels_last else "position_sum"
        if len(deltas) == 1 and _is_matrix(self.uses[0]):
            return Reduction("direct", delta=_name(deltas[0]))
        delta = _positions(deltas, scope) if self.channels_last else deltas[0]
        return Reduction(kernel, delta=_name(delta))


@dataclass(frozen=True)
class Embedding(Form):
    """Row i of G = Σ δ_t over the positions t with id i; rows of other ids are zero."""

    ids: ir.Value
    output: ir.Value
    vocabulary: int
    coverage = "scatter"

    @property
    def outputs(self) -> tuple[ir.Value, ...]:
        return (self.output,)

    def reduction(self, scope: Scope) -> Reduction:
        ids, delta = scope.value(self.ids), scope.delta(self.output)
        rank = len(extents(self.ids) or ())
        if rank != 2:
            emit = scope.emitter("Embedding", delta)
            ids = emit("Reshape", ids, emit.integers(0, -1))
            delta = emit("Reshape", delta, emit.integers(0, -1, _extent(self.output, -1)))
        return Reduction(
            "embedding", delta=_name(delta), activation=_name(ids), attributes={"vocabulary": self.vocabulary}
        )


@dataclass(frozen=True)
class Repeated(Form):
    """G = δ summed over the axes along which Expand repeats the parameter (a class token)."""

    parameter: ir.Value
    output: ir.Value
    coverage = "direct"

    @property
    def outputs(self) -> tuple[ir.Value, ...]:
        return (self.output,)

    def reduction(self, scope: Scope) -> Reduction:
        full, shape = extents(self.output), extents(self.parameter) or ()
        if full is None:
            raise UnsupportedOpError(
                f"value {self.output.name!r} has unknown rank, so the gradient of its parameter cannot be summed: export "
                "the model with known shapes"
            )
        delta, emit = scope.delta(self.output), scope.emitter("Repeated", self.output)
        if not _batch_first(self.output):
            delta, full = emit("Reshape", delta, _sizes(emit, scope, full[1:])), (None, None, *full[1:])
        aligned = (1,) * (len(full) - len(shape)) + shape
        axes = [axis for axis in range(1, len(full)) if aligned[axis] == 1 and full[axis] != 1]
        if axes:
            delta = emit("ReduceSum", delta, emit.integers(*axes), keepdims=0)
        if len(full) - len(axes) != 2:
            delta = emit("Reshape", delta, emit.integers(0, -1))
        return Reduction("direct", delta=_name(delta))


@dataclass(frozen=True)
class Broadcast(Repeated):
    """The same for a parameter that an elementwise operator broadcasts.

    `output` then stands for the parameter in the shape of the node's output. It exists only while the graph is
    differentiated.
    """

    node: ir.Node
    index: int


@dataclass(frozen=True)
class Whole(Form):
    """G as the engine itself computes it: exact for any use, but summed over the batch.

    The slow fallback for parameters that no rule covers. The scoring model then takes one sample at a time.
    """

    parameter: ir.Value
    coverage = "fallback"

    @property
    def outputs(self) -> tuple[ir.Value, ...]:
        return (self.parameter,)

    def reduction(self, scope: Scope) -> Reduction:
        return Reduction("whole", delta=_name(scope.delta(self.parameter)))


def _positions(values: list[ir.Value], scope: Scope) -> ir.Value:
    """Reshape [B, n], [B, …, n] and [B·T, n] to [B, T, n], and concatenate them along T."""
    emit = scope.emitter("Dense", values[0])
    flat = []
    for value in (_turned(item, emit, scope) for item in values):
        whole = _rank(value) == 3 and _batch_first(value)
        flat.append(value if whole else emit("Reshape", value, _sizes(emit, scope, (_extent(value, -1),))))
    return flat[0] if len(flat) == 1 else emit("Concat", *flat, axis=1)


def _turned(value: ir.Value, emit: Emitter, scope: Scope) -> ir.Value:
    """Move the batch axis to the front: attention often uses [T, B, n] or [T·B, n]."""
    axes = [str(extent) for extent in value.shape or ()]
    if axes and axes[0].startswith(POSITIONS_FIRST):
        batch = emit("Shape", scope.graph.inputs[0], start=0, end=1)
        sizes = [int(extent) if extent.isdigit() else 0 for extent in axes[1:]]
        value = emit("Reshape", value, emit("Concat", emit.integers(-1), batch, emit.integers(*sizes), axis=0))
        axes = ["", BATCH, *axes[1:]]
        value.shape = ir.Shape([int(axis) if axis.isdigit() else axis or None for axis in axes])
    if BATCH not in axes[1:]:
        return value
    first = axes.index(BATCH)
    order = [first, *(axis for axis in range(len(axes)) if axis != first)]
    turned = emit("Transpose", value, perm=order)
    turned.shape = ir.Shape([list(value.shape or ())[axis] for axis in order])
    return turned


def _sizes(emit: Emitter, scope: Scope, last: tuple[int | None, ...]) -> ir.Value:
    """Return the shape [B, −1, *last] as a value."""
    batch = emit("Shape", scope.graph.inputs[0], start=0, end=1)
    return emit("Concat", batch, emit.integers(-1, *(int(extent or 0) for extent in last)), axis=0)


def _batch_first(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) > 0 and str(value.shape[0]) == BATCH


def _is_matrix(value: ir.Value) -> bool:
    return _rank(value) == 2 and _batch_first(value)


def _rank(value: ir.Value) -> int:
    return len(extents(value) or ())


def _extent(value: ir.Value, axis: int) -> int:
    shape = extents(value)
    extent = shape[axis] if shape else None
    if extent is None:
        raise UnsupportedOpError(
            f"value {value.name!r} has an unknown number of channels: export the model with fixed sizes"
        )
    return extent


def _name(value: ir.Value) -> str:
    return str(value.name)
