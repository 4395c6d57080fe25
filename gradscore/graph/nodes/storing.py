"""Writes a model's ONNX file tensor by tensor, so that its weights never stand in memory a second time.

An ONNX file is one protobuf message: fields are a tag, a length, and content. The graph's length is known before its
weights are written, which `SerializeToString` would copy twice. What one message cannot hold goes into a file beside it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto

from gradscore.errors import ModelError

LARGEST_FILE = (1 << 31) - 1  # protobuf's limit
_STREAMED = 1 << 16
_PAGE = 1 << 12  # where a weight must begin for the runtime to map it into memory
_GRAPH_FIELD, _INITIALIZER_FIELD, _RAW_DATA_FIELD = 7, 5, 9


@dataclass(frozen=True)
class _Weight:
    """A large tensor, and where it begins in a file of such tensors."""

    name: str
    tensor: ir.TensorProtocol
    offset: int


def write_model(model: ir.Model, path: Path, data: str | None = None) -> None:
    """Write a model to a file; with `data`, its large weights are those in the file of this name beside it.

    Raises
    ------
    ModelError
        The file would be larger than protobuf allows.
    """
    weights = _large_weights(model)
    clone = model.clone()
    for weight in weights:
        del clone.graph.initializers[weight.name]
    proto = ir.to_proto(clone)
    del proto.graph.value_info[:]
    proto.graph.initializer.extend(_elsewhere(weight, data) for weight in weights if data is not None)
    inside = [] if data is not None else [(_header(weight), weight.tensor) for weight in weights]
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    sizes = [len(header) + len(_prefix(_RAW_DATA_FIELD, tensor.nbytes)) + tensor.nbytes for header, tensor in inside]
    whole = len(graph) + sum(len(_prefix(_INITIALIZER_FIELD, size)) + size for size in sizes)
    if whole > LARGEST_FILE:
        raise ModelError(
            f"{path.name} would take {whole / 2**30:.1f} GiB, an ONNX file holds 2: let its weights lie beside it"
        )
    with path.open("wb") as stream:
        stream.write(proto.SerializeToString() + _prefix(_GRAPH_FIELD, whole) + graph)
        for (header, tensor), size in zip(inside, sizes, strict=True):
            stream.write(_prefix(_INITIALIZER_FIELD, size) + header + _prefix(_RAW_DATA_FIELD, tensor.nbytes))
            stream.write(_little_endian(tensor.numpy()))


def fits_one_file(model: ir.Model) -> bool:
    """Tell whether protobuf's limit leaves room for the weights, with an eighth of it for everything else."""
    return sum(weight.tensor.nbytes for weight in _large_weights(model)) <= LARGEST_FILE // 8 * 7


def write_weights(model: ir.Model, path: Path) -> None:
    """Write a model's large weights to a file of their own, where `write_model` expects them."""
    with path.open("wb") as stream:
        stream.writelines(_blocks(model))


def sha256_of_weights(model: ir.Model) -> str:
    """Return the SHA-256 of the file that `write_weights` writes, in hex."""
    digest = hashlib.sha256()
    for block in _blocks(model):
        digest.update(block)
    return digest.hexdigest()


def _large_weights(model: ir.Model) -> list[_Weight]:
    found, offset = [], 0
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > _STREAMED:
            found.append(_Weight(name, tensor, offset))
            offset += -(-tensor.nbytes // _PAGE) * _PAGE
    return found


def _blocks(model: ir.Model) -> Iterator[bytes | memoryview]:
    for weight in _large_weights(model):
        yield _little_endian(weight.tensor.numpy())
        yield bytes(-weight.tensor.nbytes % _PAGE)


def _elsewhere(weight: _Weight, data: str) -> TensorProto:
    proto = TensorProto()
    proto.ParseFromString(_header(weight))
    proto.data_location = TensorProto.EXTERNAL
    for key, value in (("location", data), ("offset", weight.offset), ("length", weight.tensor.nbytes)):
        proto.external_data.add(key=key, value=str(value))
    return proto


def _header(weight: _Weight) -> bytes:
    shape, kind = weight.tensor.numpy().shape, int(weight.tensor.dtype)
    header: bytes = onnx.TensorProto(name=weight.name, dims=shape, data_type=kind).SerializeToString()
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
