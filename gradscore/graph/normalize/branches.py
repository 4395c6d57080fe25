"""If nodes whose condition follows from shapes alone, replaced by the branch that is always taken.

Exporters leave such nodes where a model asks for a size, as torch's squeeze does. What depends on the data stays.
"""

import onnx_ir as ir

from gradscore.graph.nodes.emitter import attribute
from gradscore.graph.nodes.probing import probe_values

_SHAPE_READERS = ("Shape", "Size")


def take_constant_branches(model: ir.Model) -> None:
    """Replace every such node of the graph, in place, and those that come to light within a branch.

    Requires inputs with a symbolic batch: a condition that differs between batch sizes is not constant.
    """
    while found := [node for node in model.graph if node.op_type == "If" and _follows_from_shapes(node.inputs[0])]:
        taken = {node: value for node, value in zip(found, _conditions(model, found), strict=True) if value is not None}
        for node, condition in taken.items():
            _inline(model.graph, node, attribute(node, "then_branch" if condition else "else_branch", None))
        if not taken:
            return


def _follows_from_shapes(condition: ir.Value | None) -> bool:
    waiting = [condition]
    while waiting:
        value = waiting.pop()
        node = value.producer() if value is not None else None
        if value is not None and node is None and not value.is_initializer():
            return False
        if node is not None and node.op_type not in _SHAPE_READERS:
            waiting.extend(node.inputs)
    return True


def _conditions(model: ir.Model, nodes: list[ir.Node]) -> list[bool | None]:
    """Return the one value that each condition has at all sizes, None where there are two."""
    values = [node.inputs[0] for node in nodes]
    computed = list(dict.fromkeys(str(value.name) for value in values if value is not None and value.producer()))
    runs = probe_values(model, computed) if computed else []
    found = {name: {bool(run[position].item()) for run in runs} for position, name in enumerate(computed)}
    for value in values:
        if value is not None and value.const_value is not None:
            found[str(value.name)] = {bool(value.const_value.numpy().item())}
    seen = [found[str(value.name)] if value is not None else set() for value in values]
    return [next(iter(one)) if len(one) == 1 else None for one in seen]


def _inline(graph: ir.Graph, node: ir.Node, branch: ir.Graph) -> None:
    """Move a branch's nodes and weights to where its node stands; names within are unique only there."""
    outputs, inner = list(branch.outputs), list(branch)
    branch.outputs.clear()
    branch.remove(inner)
    for value in [output for one in inner for output in one.outputs]:
        value.name = f"{node.outputs[0].name}/{value.name}"
    for name, value in list(branch.initializers.items()):
        del branch.initializers[name]
        value.name = f"{node.outputs[0].name}/{name}" if name in graph.initializers else name
        graph.register_initializer(value)
    graph.insert_before(node, inner)
    for old, new in zip(node.outputs, outputs, strict=True):
        if old.is_graph_output():
            old.name, new.name = f"{old.name}/branch", old.name
        new.type, new.shape = new.type or old.type, None if new.producer() else new.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
