"""An ONNX file, read safely: bounded, checked, and with no path that leaves the model's folder.

Large weights leave the protobuf message here: it cannot hold two gigabytes, and whoever copies or converts it would copy
them too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from gradscore.errors import ModelError

_LARGE = 1 << 16  # bytes; smaller tensors may be shapes and axes, which conversions read
_PLAIN = (
    *(TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16),
    *(TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64),
)
_UNCHECKED_DOMAIN = "gradscore.unchecked"


@dataclass(frozen=True)
class Classifier:
    """A classifier's file: a message in which large weights stand as inputs, those weights, and the files read."""

    proto: ModelProto
    weights: Mapping[str, ir.TensorProtocol]
    files: tuple[Path, ...]


def read_classifier(path: Path) -> Classifier:
    """Read and check a classifier's ONNX file, weights beside it included.

    Raises
    ------
    ModelError
        The file is missing, truncated, not ONNX, invalid, or names external data outside its folder.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        model = onnx.load_model(path, load_external_data=False)
    except DecodeError as error:
        size = path.stat().st_size
        raise ModelError(f"{path} ({size} bytes) is truncated or not an ONNX model: export it again") from error
    if not model.HasField("graph") or not model.graph.node:
        raise ModelError(f"{path} holds no graph: it is not an ONNX model, or an empty one")
    beside = sorted({_data_file(tensor, path) for tensor in _tensors(model.graph) if _is_external(tensor)})
    weights = _take_weights(model.graph, path)
    _load_external_data(model.graph, path)
    light = ModelProto()
    light.CopyFrom(model)  # the message that was read keeps its memory, whatever leaves it
    _check(light, path)
    return Classifier(light, weights, (path, *beside))


def _check(model: ModelProto, path: Path) -> None:
    try:
        onnx.checker.check_model(_without_deprecated(model))
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(f"{path} is not a valid ONNX model: {str(error).strip().splitlines()[0]}") from error


def _without_deprecated(model: ModelProto) -> ModelProto:
    """Hide GroupNormalization from the checker: opset 21 corrected it, and before that exporters wrote it all the same."""
    if not any(node.op_type == "GroupNormalization" for node in model.graph.node):
        return model
    checked = ModelProto()
    checked.CopyFrom(model)
    checked.opset_import.append(helper.make_opsetid(_UNCHECKED_DOMAIN, 1))
    for node in checked.graph.node:
        if node.op_type == "GroupNormalization":
            node.domain = _UNCHECKED_DOMAIN
    return checked


def _take_weights(graph: GraphProto, path: Path) -> dict[str, ir.TensorProtocol]:
    """Let inputs stand for a graph's large weights; returns these, mapped into memory where they lie in a file."""
    weights: dict[str, ir.TensorProtocol] = {}
    inputs = {value.name for value in graph.input}
    for index in reversed(range(len(graph.initializer))):
        tensor = graph.initializer[index]
        size = _size(tensor)
        if tensor.data_type not in _PLAIN or size <= _LARGE:
            continue
        weights[tensor.name] = _mapped(tensor, path, size) if _is_external(tensor) else _array(tensor, path)
        if tensor.name not in inputs:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        del graph.initializer[index]
    return weights


def _size(tensor: TensorProto) -> int:
    size = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize if tensor.data_type in _PLAIN else 1
    for extent in tensor.dims:
        size *= extent
    return size


def _array(tensor: TensorProto, path: Path) -> ir.TensorProtocol:
    try:
        return ir.tensor(numpy_helper.to_array(tensor), name=tensor.name)
    except ValueError as error:
        raise ModelError(f"{path}: weight {tensor.name!r} is damaged ({error}): export the model again") from error


def _mapped(tensor: TensorProto, path: Path, size: int) -> ir.TensorProtocol:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = _data_file(tensor, path)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except ValueError as error:
        raise ModelError(f"{path}: weight {tensor.name!r} has no valid place in {file.name} ({error})") from error
    if offset < 0 or length != size or offset + length > file.stat().st_size:
        raise ModelError(
            f"{path}: weight {tensor.name!r} cannot be read from {file.name}: it needs {size} bytes from {offset} on, and "
            f"the file has {file.stat().st_size}"
        )
    return ir.ExternalTensor(
        entries["location"], offset, length, ir.DataType(tensor.data_type), shape=ir.Shape(tensor.dims), name=tensor.name,
        base_dir=path.parent.resolve(),
    )  # fmt: skip


def _load_external_data(graph: GraphProto, path: Path) -> None:
    folder = path.parent.resolve()
    for tensor in _tensors(graph):
        if _is_external(tensor):
            file = _data_file(tensor, path)
            try:
                onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            except (OSError, ValueError, onnx.checker.ValidationError) as error:
                raise ModelError(f"{path}: weight {tensor.name!r} cannot be read from {file.name} ({error})") from error
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]


def _is_external(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL


def _data_file(tensor: TensorProto, path: Path) -> Path:
    """Return the file that a weight lies in; it must be in the model's own folder, links followed."""
    folder = path.parent.resolve()
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    target = (folder / location).resolve()
    if not target.is_relative_to(folder):
        raise ModelError(f"{path}: weight {tensor.name!r} points outside the model's folder ({location})")
    if not target.is_file():
        raise ModelError(f"{path}: the file of weight {tensor.name!r} is missing ({location})")
    return target


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield every tensor of a graph and its subgraphs."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for subgraph in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _tensors(subgraph)
