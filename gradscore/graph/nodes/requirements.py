"""What a rewriting rule must know of a value; where the graph does not say it, a refusal that names node and operator."""

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gradscore.errors import UnsupportedOpError
from gradscore.graph.nodes.emitter import extents


def refusal(node: ir.Node, reason: str) -> UnsupportedOpError:
    """Return the error for a node that a rule cannot rewrite; `reason` says why, and what to do."""
    return UnsupportedOpError(f"node {node.name or node.outputs[0].name!r} ({node.op_type}) {reason}")


def rank_of(value: ir.Value | None, node: ir.Node) -> int:
    """Return the number of a value's axes."""
    shape = extents(value)
    if shape is None:
        raise refusal(node, "has an input of unknown rank: export it with known shapes")
    return len(shape)


def channels_of(value: ir.Value | None, node: ir.Node) -> int:
    """Return the extent of a value's second axis."""
    return extent_of(value, 1, node)


def extent_of(value: ir.Value | None, axis: int, node: ir.Node) -> int:
    """Return the extent of one axis."""
    shape = extents(value)
    extent = None if shape is None or not -len(shape) <= axis < len(shape) else shape[axis]
    if extent is None:
        raise refusal(node, f"needs an input whose axis {axis} is of fixed size: export the model so")
    return extent


def spatial_of(value: ir.Value | None, node: ir.Node) -> list[int]:
    """Return the extents after batch and channels."""
    return [extent_of(value, axis, node) for axis in range(2, rank_of(value, node))]


def array_of(value: ir.Value | None, node: ir.Node) -> NDArray[Any]:
    """Return the array of an initializer."""
    if value is None or value.const_value is None:
        raise refusal(node, "computes what must be a constant: export it in eval mode, with constants folded")
    return value.const_value.numpy()


def optional_array(node: ir.Node, index: int) -> NDArray[Any] | None:
    """Return the array of an input that may be left out, None where it is."""
    value = input_of(node, index)
    return None if value is None or value.shape == ir.Shape([0]) else np.asarray(array_of(value, node))


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """Return an input, None where the node leaves it out."""
    return node.inputs[index] if index < len(node.inputs) else None
