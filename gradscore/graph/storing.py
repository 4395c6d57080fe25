"""Writes a model's ONNX file tensor by tensor, so that its weights never stand in memory a second time.

An ONNX file is one protobuf message: fields are a tag, a length, and content. The graph's length is known before its
weights are written, which `SerializeToString` would copy twice.
"""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from gradscore.errors import ModelError

LARGEST_FILE = (1 << 31) - 1  # protobuf's limit
_STREAMED = 1 << 16
_GRAPH_FIELD, _INITIALIZER_FIELD, _RAW_DATA_FIELD = 7, 5, 9


def write_model(model: ir.Model, path: Path) -> None:
    """Write a model to a file.

    Raises
    ------
    ModelError
        The file would be larger than protobuf allows.
    """
    clone = model.clone()
    streamed = []
    for name, value in list(clone.graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > _STREAMED:
            streamed.append((_header(name, tensor), tensor))
            del clone.graph.initializers[name]
    proto = ir.to_proto(clone)
    del proto.graph.value_info[:]
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    sizes = [len(header) + len(_prefix(_RAW_DATA_FIELD, tensor.nbytes)) + tensor.nbytes for header, tensor in streamed]
    whole = len(graph) + sum(len(_prefix(_INITIALIZER_FIELD, size)) + size for size in sizes)
    if whole > LARGEST_FILE:
        raise ModelError(
            f"the scoring model would take {whole / 2**30:.1f} GiB, an ONNX file holds 2: export a smaller model"
        )
    with path.open("wb") as stream:
        stream.write(proto.SerializeToString() + _prefix(_GRAPH_FIELD, whole) + graph)
        for (header, tensor), size in zip(streamed, sizes, strict=True):
            stream.write(_prefix(_INITIALIZER_FIELD, size) + header + _prefix(_RAW_DATA_FIELD, tensor.nbytes))
            stream.write(_little_endian(tensor.numpy()))


def _header(name: str, tensor: ir.TensorProtocol) -> bytes:
    array = tensor.numpy()
    header: bytes = onnx.TensorProto(name=name, dims=array.shape, data_type=int(tensor.dtype)).SerializeToString()
    return header


def _little_endian(array: np.ndarray) -> memoryview:
    plain = np.ascontiguousarray(array)
    swapped = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
    return swapped.reshape(-1).view(np.uint8).data


def _prefix(field: int, size: int) -> bytes:
    """Return a length-delimited field's tag and length."""
    return bytes([field << 3 | 2]) + _varint(size)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
