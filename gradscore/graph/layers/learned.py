"""Which numbers of a graph training can have set."""

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.emitter import ORIGIN_KEY, is_constant, origin_of
from gradscore.graph.nodes.naming import PARAMETER_ENDINGS

_MASKED = -1e4  # additive attention masks hold values below this; no learned weight does


def depends_on_weights(value: ir.Value) -> bool:
    """Tell whether a value was computed with some weight: only then is a constant beside it a layer of the network."""
    seen, waiting = set(), [value]
    while waiting:
        node = waiting.pop().producer()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        inputs = [item for item in node.inputs if item is not None]
        if node.op_type in _WEIGHTED and any(is_learned(item) for item in inputs):
            return True
        waiting.extend(inputs)
    return False


_WEIGHTED = ("Conv", "ConvTranspose", "Gather", "Gemm", "MatMul")


def _is_a_layers_own(value: ir.Value) -> bool:
    """Tell whether a single number is learned: it is called so, or stands where a layer's kernel or bias does."""
    named = origin_of(value).endswith(PARAMETER_ENDINGS) or ORIGIN_KEY in value.metadata_props
    return named or any(use.node.op_type in _WEIGHTED for use in value.uses())


def is_learned(value: ir.Value) -> bool:
    """Tell whether a value is a floating-point initializer that training can have set."""
    if not value.is_initializer() or value.dtype is None or not value.dtype.is_floating_point() or is_constant(value):
        return False
    tensor = value.const_value
    if tensor is None or tensor.size == 0:
        return False
    return (tensor.size > 1 or _is_a_layers_own(value)) and not (
        tensor.size <= _LARGEST_MASK and float(np.min(tensor.numpy())) < _MASKED
    )


_LARGEST_MASK = 1 << 24
