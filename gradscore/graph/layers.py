"""Pass 3: find the layers with weights, and say which graph values carry their gradient.

Requires: a normalised graph with inferred shapes. Ensures: every floating-point parameter stands in a layer, or is
reported as uncovered; nothing is skipped silently.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import onnx_ir as ir

from gradscore.errors import ModelError, UnsupportedOpError
from gradscore.graph.emitter import attribute, extents
from gradscore.metadata import ALL_LAYERS, HEAD_FEATURES, KernelName, Layer, Parameter, Reduction

_WEIGHT_ENDING = ".weight"
_BIAS_KERNELS: dict[str, KernelName] = {"conv": "position_sum", "outer": "direct", "sequence": "sequence_sum"}
_SCOPES_KEY = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class FoundLayer:
    """A layer in the graph: its record for the metadata, and the value whose gradient is its δ."""

    layer: Layer
    output: ir.Value


class LayerRule(ABC):
    """How one operator's weight gradient follows from its input a and its output's gradient δ."""

    op_type: str

    @abstractmethod
    def weight(self, node: ir.Node) -> ir.Value | None:
        """Return the kernel that this rule covers at a node; None where the node has no weights."""

    @abstractmethod
    def find(self, node: ir.Node, weight: ir.Value) -> FoundLayer:
        """Describe the layer; called only where `weight` found one."""


class ConvRule(LayerRule):
    """G[m, c, k] = Σ_t δ[m, t] · a[c, receptive field of t at k], per group."""

    op_type = "Conv"

    def weight(self, node: ir.Node) -> ir.Value | None:
        return _learned(node.inputs[1])

    def find(self, node: ir.Node, weight: ir.Value) -> FoundLayer:
        kernel = attribute(node, "kernel_shape", [])
        rank = len(kernel)
        geometry = {
            "kernel": kernel,
            "strides": attribute(node, "strides", [1] * rank),
            "dilations": attribute(node, "dilations", [1] * rank),
            "pads": attribute(node, "pads", [0] * (2 * rank)),
            "groups": attribute(node, "group", 1),
        }
        bias = _learned(node.inputs[2]) if len(node.inputs) > 2 else None
        reduction = Reduction("conv", _gradient(node.outputs[0]), _name(node.inputs[0]), geometry)
        return _found(node, node.outputs[0], weight, bias, reduction, "tile kernel")


class GemmRule(LayerRule):
    """G = δ aᵀ: one position, closed form."""

    op_type = "Gemm"

    def weight(self, node: ir.Node) -> ir.Value | None:
        return _learned(node.inputs[1])

    def find(self, node: ir.Node, weight: ir.Value) -> FoundLayer:
        if attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1 or attribute(node, "beta", 1.0) != 1:
            raise UnsupportedOpError(
                f"node {node.name!r} (Gemm) has transA, alpha or beta set: export the layer as a plain Linear"
            )
        bias = _learned(node.inputs[2]) if len(node.inputs) > 2 else None
        reduction = Reduction("outer", _gradient(node.outputs[0]), _name(node.inputs[0]))
        return _found(node, node.outputs[0], weight, bias, reduction, "closed form")


class MatMulRule(LayerRule):
    """G = δ aᵀ for [B, n] inputs, Σ_t δ_t a_tᵀ for [B, T, n]; a bias added right after belongs to the layer."""

    op_type = "MatMul"

    def weight(self, node: ir.Node) -> ir.Value | None:
        right = _learned(node.inputs[1])
        if right is None and _learned(node.inputs[0]) is not None:
            raise UnsupportedOpError(f"node {node.name!r} (MatMul) has its weight on the left: export the layer as a Linear")
        return right

    def find(self, node: ir.Node, weight: ir.Value) -> FoundLayer:
        shape = extents(node.inputs[0])
        if shape is None or len(shape) not in (2, 3) or len(extents(weight) or ()) != 2:
            raise UnsupportedOpError(f"node {node.name!r} (MatMul) multiplies {shape}: only [B, n] and [B, T, n] are covered")
        output, bias = self._with_bias(node)
        kernel: KernelName = "outer" if len(shape) == 2 else "sequence"
        reduction = Reduction(kernel, _gradient(output), _name(node.inputs[0]))
        return _found(node, output, weight, bias, reduction, "closed form" if kernel == "outer" else "tile kernel")

    @staticmethod
    def _with_bias(node: ir.Node) -> tuple[ir.Value, ir.Value | None]:
        output = node.outputs[0]
        uses = list(output.uses())
        if len(uses) != 1 or uses[0].node.op_type != "Add" or output.is_graph_output():
            return output, None
        add = uses[0].node
        bias = _learned(add.inputs[1 - uses[0].idx])
        if bias is None or extents(bias) != (extents(output) or (None,))[-1:]:
            return output, None
        return add.outputs[0], bias


RULES: dict[str, LayerRule] = {rule.op_type: rule for rule in (ConvRule(), GemmRule(), MatMulRule())}


def find_layers(graph: ir.Graph, *, allow_uncovered: bool = False) -> tuple[tuple[FoundLayer, ...], tuple[Parameter, ...]]:
    """Return the layers in graph order, and the parameters that no layer covers.

    Raises
    ------
    ModelError
        The model has no weights.
    UnsupportedOpError
        A parameter is not covered, or shared, and `allow_uncovered` is False.
    """
    found = []
    for node in graph:
        rule = RULES.get(node.op_type)
        if rule is not None and (weight := rule.weight(node)) is not None:
            found.append(rule.find(node, weight))
    if not found:
        raise ModelError("the model has no layer with weights, so its gradient says nothing: is this a trained classifier?")
    covered = Counter(parameter.name for layer in found for parameter in layer.layer.parameters)
    uncovered = tuple(_uncovered(graph, covered))
    if uncovered and not allow_uncovered:
        raise UnsupportedOpError(_uncovered_message(graph, uncovered))
    return _with_unique_names(found), uncovered


def _found(
    node: ir.Node, output: ir.Value, weight: ir.Value, bias: ir.Value | None, reduction: Reduction, coverage: str
) -> FoundLayer:
    parameters, reductions = [_parameter(weight, coverage)], [reduction]
    if bias is not None:
        parameters.append(_parameter(bias, "direct"))
        reductions.append(replace(reduction, kernel=_BIAS_KERNELS[reduction.kernel], activation=None, geometry=None))
    layer = Layer(_layer_name(node, weight), node.op_type, tuple(parameters), tuple(reductions))
    return FoundLayer(layer, output)


def _learned(value: ir.Value | None) -> ir.Value | None:
    """Return the value if it is a floating-point initializer."""
    if value is None or not value.is_initializer() or value.dtype is None or not value.dtype.is_floating_point():
        return None
    return value


def _parameter(value: ir.Value, coverage: str) -> Parameter:
    return Parameter(_name(value), tuple(extent or 0 for extent in extents(value) or ()), coverage)


def _uncovered(graph: ir.Graph, covered: Counter[str]) -> Iterable[Parameter]:
    for name, value in graph.initializers.items():
        uses = len(list(value.uses()))
        parameter = _parameter(value, "uncovered")
        is_constant = _learned(value) is None or parameter.count == 1 or not uses
        if not is_constant and covered[name] != uses:
            yield parameter


def _uncovered_message(graph: ir.Graph, uncovered: tuple[Parameter, ...]) -> str:
    first = uncovered[0]
    users = sorted({f"{use.node.name!r} ({use.node.op_type})" for use in graph.initializers[first.name].uses()})
    more = f" and {len(uncovered) - 1} more" if len(uncovered) > 1 else ""
    shared = "is shared by" if len(users) > 1 else "is used by"
    return (
        f"parameter {first.name!r} {list(first.shape)}{more} has no rule: it {shared} {', '.join(users)}; "
        "pass --allow-uncovered to leave it out of the statistics"
    )


def _layer_name(node: ir.Node, weight: ir.Value) -> str:
    name = _name(weight)
    if name.endswith(_WEIGHT_ENDING):
        return name.removesuffix(_WEIGHT_ENDING)
    return _module_name(node) or node.name or node.op_type.lower()


def _module_name(node: ir.Node) -> str | None:
    """Read the module's path from the name scopes that torch's exporter leaves: ['', 'conv1', 'conv2d'] -> 'conv1'."""
    scopes = node.metadata_props.get(_SCOPES_KEY, "").strip("[]").split(", ")
    names = [scope.strip("'\"") for scope in scopes]
    return names[-2] if len(names) > 1 and names[-2] else None


def _with_unique_names(found: list[FoundLayer]) -> tuple[FoundLayer, ...]:
    taken = {ALL_LAYERS, *HEAD_FEATURES}
    unique = []
    for layer in found:
        name, number = layer.layer.name, 1
        while name in taken:
            number += 1
            name = f"{layer.layer.name}_{number}"
        taken.add(name)
        unique.append(replace(layer, layer=replace(layer.layer, name=name)))
    return tuple(unique)


def _name(value: ir.Value | None) -> str:
    if value is None or value.name is None:
        raise ModelError("the graph has an unnamed value where a layer's input or weight should be")
    return value.name


def _gradient(value: ir.Value) -> str:
    return f"{_name(value)}_grad"
