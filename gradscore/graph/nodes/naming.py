"""Which parameters make up a layer, and what it is called: the same whichever exporter wrote the model."""

from collections.abc import Sequence

import onnx_ir as ir

from gradscore.graph.nodes.emitter import MODULE_KEY, UNSHARED_KEY, extents, origin_of

PARAMETER_ENDINGS = (".weight", ".bias")
_SCOPES_KEY = "pkg.torch.onnx.name_scopes"


def layer_names(uses: Sequence[tuple[ir.Value, ir.Node]]) -> list[str]:
    """Return the name of each parameter's layer; a parameter is given with a node that uses it.

    A bias belongs to the layer of the matrix product that it is added to. A layer is called after its first parameter
    that is called `<layer>.weight` or `<layer>.bias`; else after the module that its node comes from; else after the
    node itself.
    """
    positions = {str(value.name): position for position, (value, _) in enumerate(uses)}
    heads = [positions.get(_kernel_of(value, node), own) for own, (value, node) in enumerate(uses)]
    stems: dict[int, str] = {}
    for head, (value, _) in zip(heads, uses, strict=True):
        if (stem := _stem(value)) is not None:
            stems.setdefault(head, stem)
    return [stems.get(head) or _name_of(*uses[head]) for head in heads]


def module_of(node: ir.Node) -> str | None:
    """Return the path of the module that a node comes from, None where its exporter does not say it.

    torch's dynamo exporter leaves name scopes, ['', 'conv1', 'conv2d'] -> 'conv1'; its older one, and tf2onnx, name a
    node after its module and operator, '/encoder/layers.0/fc/MatMul' -> 'encoder.layers.0.fc'.
    """
    if (known := node.metadata_props.get(MODULE_KEY)) is not None:
        return known
    scopes = [scope.strip("'\"") for scope in node.metadata_props.get(_SCOPES_KEY, "").strip("[]").split(", ")]
    if len(scopes) > 1 and scopes[-2]:
        return scopes[-2]
    *path, last = (node.name or "").strip("/").split("/")
    return ".".join(path) if path and last.startswith(node.op_type) else None


def _name_of(value: ir.Value, node: ir.Node) -> str:
    return module_of(node) or node.name or origin_of(value)


def _stem(value: ir.Value) -> str | None:
    """Return a parameter's name less its ending; a copy of a tensor that was shared by accident has another's name."""
    name = origin_of(value)
    if UNSHARED_KEY not in value.metadata_props:
        for ending in PARAMETER_ENDINGS:
            if name.endswith(ending):
                return name.removesuffix(ending)
    return None


def _kernel_of(bias: ir.Value, node: ir.Node) -> str:
    """Return the name of the weight whose product alone a bias is added to; none has the empty name."""
    others = [value for value in node.inputs if value is not None and value is not bias]
    product = others[0].producer() if len(others) == 1 else None
    if node.op_type != "Add" or product is None or product.op_type != "MatMul" or len(others[0].uses()) != 1:
        return ""
    weight, vector = product.inputs[1], extents(bias)
    shape = extents(weight)
    if weight is None or not weight.is_initializer() or not shape or not vector:
        return ""
    is_bias = vector[-1] == shape[-1] and set(vector[:-1]) <= {1}
    return str(weight.name) if is_bias else ""
