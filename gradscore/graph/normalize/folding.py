"""What depends on no input, computed once; a weight that was turned, scaled, normalised or dequantised keeps its name."""

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from gradscore.errors import GradscoreError, ModelError
from gradscore.graph.nodes.emitter import CONSTANT_KEY, ORIGIN_KEY, origin_of
from gradscore.graph.nodes.running import run_graph

_REPEATING = ("Expand", "Gather", "Tile")  # they repeat or pick a weight's numbers: the weight stays as it was learned


def fold_constants(model: ir.Model) -> None:
    """Replace every value that depends on no input by an initializer, in place.

    Raises
    ------
    ModelError
        The runtime cannot compute them.
    """
    common_passes.CommonSubexpressionEliminationPass()(model)  # a weight that is turned twice stays one weight
    sources = _foldable(model.graph)
    frontier = [value for value in sources if _is_read_outside(value, sources)]
    if not frontier:
        return
    arrays = _computed(model, [str(value.name) for value in frontier])
    for value, array in zip(frontier, arrays, strict=True):
        _replace(model.graph, value, array, sources[value])
    common_passes.RemoveUnusedNodesPass()(model)


def _foldable(graph: ir.Graph) -> dict[ir.Value, list[ir.Value]]:
    """Return each value that depends on initializers alone, with the learned ones among them."""
    found: dict[ir.Value, list[ir.Value]] = {}
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if not inputs or not all(value in found or value.is_initializer() for value in inputs):
            continue
        learned = [one for value in inputs for one in found.get(value, [value] if _may_be_learned(value) else [])]
        if learned and node.op_type in _REPEATING:
            continue
        found.update(dict.fromkeys(node.outputs, learned))
    return found


def _may_be_learned(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or value.dtype is None or CONSTANT_KEY in value.metadata_props:
        return False
    readers = {use.node.op_type for use in value.uses()}
    return tensor.size > 1 and (value.dtype.is_floating_point() or readers == {"DequantizeLinear"})


def _is_read_outside(value: ir.Value, folded: dict[ir.Value, list[ir.Value]]) -> bool:
    readers = [use.node for use in value.uses()]
    return value.is_graph_output() or any(output not in folded for node in readers for output in node.outputs)


def _computed(model: ir.Model, names: list[str]) -> list[np.ndarray]:
    clone = model.clone()
    values = {str(value.name): value for node in clone.graph for value in node.outputs}
    clone.graph.outputs.clear()
    clone.graph.outputs.extend(values[name] for name in names)
    common_passes.RemoveUnusedNodesPass()(clone)
    clone.graph.inputs.clear()
    try:
        return run_graph(clone, names, [{}])[0]
    except GradscoreError:
        raise
    except Exception as error:  # onnxruntime raises many types of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ModelError(
            f"what the model computes of its weights alone does not run ({reason}): export it again"
        ) from error


def _replace(graph: ir.Graph, value: ir.Value, array: np.ndarray, learned: list[ir.Value]) -> None:
    tensor = ir.tensor(np.ascontiguousarray(array), name=f"{value.name}/folded")
    largest = max(learned, key=lambda one: one.const_value.size if one.const_value is not None else 0, default=None)
    origin = {CONSTANT_KEY: "1"} if largest is None else {ORIGIN_KEY: origin_of(largest)}
    folded = ir.Value(
        name=tensor.name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor,
        metadata_props=origin,
    )  # fmt: skip
    graph.register_initializer(folded)
    if not value.is_graph_output():
        value.replace_all_uses_with(folded)
