"""A symbolic batch for an engine that wants static shapes: it is shown a size that occurs nowhere else, which is then taken out.

Every extent that the engine derives from it is m·B + r with the B shown; in the answer it becomes m·batch + r, computed.
"""

import math

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from gradscore.errors import UnsupportedOpError
from gradscore.graph.nodes.probing import BATCH

_SHOWN = 1_000_003  # a prime
_SENTINEL = 1 << 62  # from here on numbers mean "to the end"
_SIZE = "gradscore/batch"


def show_static_batch(model: bytes) -> bytes:
    """Return a serialised model whose batch is of a fixed size.

    Raises
    ------
    UnsupportedOpError
        A sample is so large that the size could occur in it.
    """
    proto = ModelProto.FromString(model)
    for value in _declared(proto):
        extents = value.type.tensor_type.shape.dim
        if math.prod(max(1, extent.dim_value) for extent in extents) >= _SHOWN and BATCH in {
            e.dim_param for e in extents
        }:
            raise UnsupportedOpError(f"value {value.name!r} is too large for onnx-ad: try --engine ort-training")
        for extent in extents:
            if extent.dim_param == BATCH:
                extent.dim_value = _SHOWN
    answer: bytes = proto.SerializeToString()
    return answer


def free_batch(model: bytes) -> bytes:
    """Return a serialised model in which the size of the first input's batch stands in the place of the one shown.

    Raises
    ------
    UnsupportedOpError
        The engine has computed something for a batch of that size.
    """
    proto = ModelProto.FromString(model)
    graph = proto.graph
    for value in _declared(proto):
        for extent in value.type.tensor_type.shape.dim:
            if extent.dim_value >= _SHOWN:
                extent.dim_param = BATCH if extent.dim_value == _SHOWN else ""
    computed = [helper.make_node("Shape", [graph.input[0].name], [_SIZE], start=0, end=1, name=_SIZE)]
    kept = []
    for tensor in list(graph.initializer):
        if _holds_size(tensor, tensor.name):
            graph.initializer.remove(tensor)
            computed += _computed(tensor.name, numpy_helper.to_array(tensor), graph)
    for node in graph.node:
        tensor = next((item.t for item in node.attribute if node.op_type == "Constant" and item.HasField("t")), None)
        if tensor is not None and _holds_size(tensor, node.output[0]):
            computed += _computed(node.output[0], numpy_helper.to_array(tensor), graph)
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend([*computed, *kept])
    answer: bytes = proto.SerializeToString()
    return answer


def _declared(proto: ModelProto) -> list[ValueInfoProto]:
    return [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]


def _holds_size(tensor: TensorProto, name: str) -> bool:
    if any(extent >= _SHOWN and extent % _SHOWN == 0 for extent in tensor.dims):
        raise UnsupportedOpError(f"onnx-ad has fixed {name!r} to one batch size: try --engine ort-training")
    return tensor.data_type == TensorProto.INT64 and bool(_follows(numpy_helper.to_array(tensor)).any())


def _follows(array: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which numbers follow from the batch shown."""
    return np.asarray((array >= _SHOWN) & (array < _SENTINEL))


def _computed(name: str, array: NDArray[np.int64], graph: GraphProto) -> list[NodeProto]:
    """Return nodes that compute m·batch + r for each number m·B + r of an array."""
    multiple = np.where(_follows(array), array // _SHOWN, 0)
    rest = np.where(_follows(array), array % _SHOWN, array)
    parts = {f"{name}/multiple": multiple, f"{name}/rest": rest}
    graph.initializer.extend(numpy_helper.from_array(part.astype(np.int64), key) for key, part in parts.items())
    size = _SIZE
    nodes = []
    if array.ndim == 0:
        size = f"{name}/batch"
        nodes.append(helper.make_node("Squeeze", [_SIZE], [size]))
    product = helper.make_node("Mul", [f"{name}/multiple", size], [f"{name}/product"])
    return [*nodes, product, helper.make_node("Add", [f"{name}/product", f"{name}/rest"], [name])]
