"""The inputs and outputs of a model in Triton's terms: a type, and extents without the batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, ValueInfoProto

from gradscore.errors import ModelError

TYPES: Mapping[int, str] = {
    TensorProto.BFLOAT16: "TYPE_BF16",
    TensorProto.BOOL: "TYPE_BOOL",
    TensorProto.DOUBLE: "TYPE_FP64",
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.INT8: "TYPE_INT8",
    TensorProto.INT16: "TYPE_INT16",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.STRING: "TYPE_STRING",
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.UINT16: "TYPE_UINT16",
    TensorProto.UINT32: "TYPE_UINT32",
    TensorProto.UINT64: "TYPE_UINT64",
}


@dataclass(frozen=True)
class Tensor:
    """An input or output: Triton's name of its type, and its extents without batch, −1 if variable."""

    name: str
    data_type: str
    dims: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.data_type} {['batch', *self.dims]}"


def signature_of(path: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Return the inputs and the outputs of an ONNX file that stands alone.

    Raises
    ------
    ModelError
        It cannot be read, has weights beside it, or Triton cannot batch or serve one of its inputs or outputs.
    """
    try:
        graph = onnx.load_model(path, load_external_data=False).graph
    except Exception as error:  # protobuf's DecodeError has no stable import path across its implementations
        raise ModelError(f"{path} cannot be read as an ONNX model: {error}") from error
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in graph.initializer):
        raise ModelError(f"{path} has weights in a file beside it: give a model that is one file")
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [_tensor(value, path) for value in graph.input if value.name not in weights]
    return inputs, [_tensor(value, path) for value in graph.output]


def _tensor(value: ValueInfoProto, path: Path) -> Tensor:
    kind = value.type.tensor_type
    if kind.elem_type not in TYPES or not kind.HasField("shape"):
        raise ModelError(
            f"{path}: {value.name!r} is not a tensor of a type and rank that Triton can serve: leave this input or output out"
        )
    extents = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim]
    if extents[:1] != [-1]:
        raise ModelError(
            f"{path}: the first axis of {value.name!r} is not the batch (shape {extents}), so Triton cannot batch: "
            "export the classifier with a free batch axis, or leave this output out"
        )
    return Tensor(value.name, TYPES[kind.elem_type], tuple(extents[1:]))
