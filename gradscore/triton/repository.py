"""A model repository for Triton Inference Server, and whether a repository's configuration fits its model.

The configuration is protobuf text, as the server's `model_config.proto` defines it. Axis 0 of every tensor is the
batch and stands in no `dims`; a tensor of shape [batch] has `dims: [ 1 ]` reshaped to nothing, since the server knows no
empty shape: clients see [batch, 1].
"""

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, ValueInfoProto

from gradscore.errors import InputError, MismatchError, ModelError
from gradscore.files.writing import refuse_existing, replacing
from gradscore.triton.prototext import parse

MAX_BATCH_SIZE = 64
MAX_QUEUE_DELAY_MICROSECONDS = 500
_MODEL = Path("1", "model.onnx")
_TYPES: Mapping[int, str] = {
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
class _Tensor:
    """One input or output: its type as Triton names it, and its extents without the batch, −1 where they vary."""

    name: str
    data_type: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class _Config:
    """What a configuration says, of what must fit the model."""

    name: str
    backend: str
    max_batch_size: int
    inputs: Sequence[_Tensor]
    outputs: Sequence[_Tensor]


def write_repository(
    model: Path,
    repository: Path,
    *,
    name: str | None = None,
    max_batch_size: int = MAX_BATCH_SIZE,
    max_queue_delay_microseconds: int = MAX_QUEUE_DELAY_MICROSECONDS,
    overwrite: bool = False,
) -> Path:
    """Write `repository/name/config.pbtxt` and `repository/name/1/model.onnx`; return the model's folder.

    Both files get their names whole, the model last: a folder without it is not complete. Requests are batched by the
    server, up to `max_batch_size` of them, waiting at most `max_queue_delay_microseconds` for each other.

    Parameters
    ----------
    model : an ONNX file that stands alone, its batch axis free
    name : what clients call the model; the file's name without its ending by default

    Raises
    ------
    InputError
        The name cannot be a folder's, or the batch size is not positive.
    ModelError
        An input or output has no free batch axis, no known rank, or a type that the server lacks.
    OutputExistsError
        The files are there and `overwrite` is False.
    """
    name = model.stem if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9_][\w.-]*", name, re.ASCII):
        raise InputError(f"{name!r} cannot name a Triton model: use letters, digits, '.', '_' and '-'")
    if max_batch_size < 1:
        raise InputError(f"max_batch_size is {max_batch_size}: give at least 1")
    inputs, outputs = _signature(model)
    folder = repository / name
    config = "\n".join([
        f"name: {_quoted(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {max_batch_size}",
        f"dynamic_batching {{ max_queue_delay_microseconds: {max_queue_delay_microseconds} }}",
        _listed("input", inputs),
        _listed("output", outputs),
        "",
    ])  # fmt: skip
    (folder / _MODEL).parent.mkdir(parents=True, exist_ok=True)
    for file in (folder / "config.pbtxt", folder / _MODEL):
        refuse_existing(file, overwrite=overwrite)
    with replacing(folder / "config.pbtxt", overwrite=overwrite) as part:
        part.write_text(config, encoding="utf-8")
    with replacing(folder / _MODEL, overwrite=overwrite) as part:
        shutil.copyfile(model, part)
    check_repository(folder)
    return folder


def check_repository(folder: Path) -> None:
    """Compare a model folder's `config.pbtxt` with the inputs and outputs that its `1/model.onnx` really has.

    Raises
    ------
    MismatchError
        They differ, or the configuration names another model, backend or no batching; the message tells the first
        difference.
    ModelError
        The configuration is not protobuf text, or the model cannot be read.
    """
    path = folder / "config.pbtxt"
    config = _read(path)
    if config.name not in ("", folder.name):
        raise MismatchError(f"{path} names the model {config.name!r}, its folder is {folder.name!r}")
    if config.backend != "onnxruntime" or config.max_batch_size < 1:
        raise MismatchError(f'{path} must say backend: "onnxruntime" and a max_batch_size of 1 or more')
    inputs, outputs = _signature(folder / _MODEL)
    for kind, told, real in (("input", config.inputs, inputs), ("output", config.outputs, outputs)):
        if problem := _difference(kind, told, real):
            raise MismatchError(f"{path} {problem}")


def _read(path: Path) -> _Config:
    try:
        fields = parse(path.read_text(encoding="utf-8"))
        (name,), (backend,) = fields.get("name", [""]), fields.get("backend", [""])
        (max_batch_size,) = fields.get("max_batch_size", ["0"])
        inputs, outputs = ([_told(entry) for entry in fields.get(kind, [])] for kind in ("input", "output"))
        return _Config(name, backend, int(max_batch_size), inputs, outputs)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is not protobuf text as Triton reads it: {error}") from error


def _told(entry: Mapping[str, list[Any]]) -> _Tensor:
    (name,), (data_type,) = entry["name"], entry["data_type"]
    dims = entry["reshape"][0].get("shape", []) if "reshape" in entry else entry.get("dims", [])
    return _Tensor(name, data_type, tuple(map(int, dims)))


def _difference(kind: str, told: Sequence[_Tensor], real: Sequence[_Tensor]) -> str | None:
    listed, wanted = ({tensor.name: tensor for tensor in tensors} for tensors in (told, real))
    if listed.keys() != wanted.keys():
        return f"lists the {kind}s {sorted(listed)}, the model has {sorted(wanted)}"
    for name, tensor in wanted.items():
        if listed[name] != tensor:
            return f"says that {kind} {name!r} is {_shown(listed[name])}, the model's is {_shown(tensor)}"
    return None


def _signature(path: Path) -> tuple[list[_Tensor], list[_Tensor]]:
    try:
        graph = onnx.load_model(path, load_external_data=False).graph
    except Exception as error:  # protobuf's DecodeError has no stable import path across its implementations
        raise ModelError(f"{path} cannot be read as an ONNX model: {error}") from error
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in graph.initializer):
        raise ModelError(f"{path} has weights in a file beside it: give a model that is one file")
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [_tensor(value, path) for value in graph.input if value.name not in weights]
    return inputs, [_tensor(value, path) for value in graph.output]


def _tensor(value: ValueInfoProto, path: Path) -> _Tensor:
    kind = value.type.tensor_type
    if kind.elem_type not in _TYPES or not kind.HasField("shape"):
        raise ModelError(f"{path}: {value.name!r} is no tensor of a type and rank that Triton can serve: leave it out")
    extents = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim]
    if extents[:1] != [-1]:
        raise ModelError(
            f"{path}: the first axis of {value.name!r} is not the batch (shape {extents}), so Triton cannot batch: "
            "export the classifier with a free batch axis, or leave this output out"
        )
    return _Tensor(value.name, _TYPES[kind.elem_type], tuple(extents[1:]))


def _listed(kind: str, tensors: Iterable[_Tensor]) -> str:
    return f"{kind} [\n" + ",\n".join(map(_entry, tensors)) + "\n]"


def _entry(tensor: _Tensor) -> str:
    lines = [f"name: {_quoted(tensor.name)}", f"data_type: {tensor.data_type}"]
    lines.append(f"dims: [ {', '.join(map(str, tensor.dims or (1,)))} ]")
    if not tensor.dims:
        lines.append("reshape { shape: [ ] }")
    return "  {\n" + "".join(f"    {line}\n" for line in lines) + "  }"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _shown(tensor: _Tensor) -> str:
    return f"{tensor.data_type} {['batch', *tensor.dims]}"
