"""An ONNX file, read safely: bounded, checked, and with no path that leaves the model's folder."""

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto

from gradscore.errors import ModelError


def read_classifier(path: Path) -> ModelProto:
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
    _load_external_data(model, path)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(f"{path} is not a valid ONNX model: {str(error).strip().splitlines()[0]}") from error
    return model


def _load_external_data(model: ModelProto, path: Path) -> None:
    folder = path.parent.resolve()
    for tensor in _tensors(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            target = (folder / location).resolve()
            if not target.is_relative_to(folder):
                raise ModelError(f"{path}: weight {tensor.name!r} points outside the model's folder ({location})")
            if not target.is_file():
                raise ModelError(f"{path}: the file of weight {tensor.name!r} is missing ({location})")
            try:
                onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            except (OSError, ValueError, onnx.checker.ValidationError) as error:
                raise ModelError(f"{path}: weight {tensor.name!r} cannot be read from {location} ({error})") from error
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]


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
