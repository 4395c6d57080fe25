"""A symbolic batch for an engine that wants static shapes: it is shown a size that occurs nowhere else, which is then taken out.

Every extent that the engine derives from it is m·B + r with the B shown; in the answer it becomes m·batch + r, computed.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from gradscore.graph.probing import BATCH

_SHOWN = 99_999_989  # a prime beyond the extents of any sample
_SENTINEL = 1 << 62  # from here on numbers mean "to the end"
_SIZE = "gradscore/batch"


def show_static_batch(model: ModelProto) -> None:
    """Let the batch be of a fixed size, in place."""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for extent in value.type.tensor_type.shape.dim:
            if extent.dim_param == BATCH:
                extent.dim_value = _SHOWN


def free_batch(model: ModelProto) -> None:
    """Put the size of the first input's batch in the place of the one shown, in place."""
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        for extent in value.type.tensor_type.shape.dim:
            if extent.dim_value >= _SHOWN:
                extent.dim_param = BATCH if extent.dim_value == _SHOWN else ""
    computed: list[NodeProto] = [helper.make_node("Shape", [graph.input[0].name], [_SIZE], start=0, end=1, name=_SIZE)]
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.INT64}
    for name, tensor in constants.items():
        array = numpy_helper.to_array(tensor)
        if _follows(array).any():
            graph.initializer.remove(tensor)
            computed += _computed(name, array, model)
    kept = []
    for node in graph.node:
        array = _constant(node)
        if array is not None and _follows(array).any():
            computed += _computed(node.output[0], array, model)
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend([*computed, *kept])


def _follows(array: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which numbers follow from the batch shown."""
    return np.asarray((array >= _SHOWN) & (array < _SENTINEL))


def _constant(node: NodeProto) -> NDArray[np.int64] | None:
    tensors = [item.t for item in node.attribute if node.op_type == "Constant" and item.HasField("t")]
    return numpy_helper.to_array(tensors[0]) if tensors and tensors[0].data_type == TensorProto.INT64 else None


def _computed(name: str, array: NDArray[np.int64], model: ModelProto) -> list[NodeProto]:
    """Return nodes that compute m·batch + r for each number m·B + r of an array."""
    multiple = np.where(_follows(array), array // _SHOWN, 0)
    rest = np.where(_follows(array), array % _SHOWN, array)
    parts = {f"{name}/multiple": multiple, f"{name}/rest": rest}
    model.graph.initializer.extend(numpy_helper.from_array(part.astype(np.int64), key) for key, part in parts.items())
    size = _SIZE
    nodes = []
    if array.ndim == 0:
        size = f"{name}/batch"
        nodes.append(helper.make_node("Squeeze", [_SIZE], [size]))
    product = helper.make_node("Mul", [f"{name}/multiple", size], [f"{name}/product"])
    return [*nodes, product, helper.make_node("Add", [f"{name}/product", f"{name}/rest"], [name])]
