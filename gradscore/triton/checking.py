"""Checks that a model folder's configuration, which users edit, fits the folder's model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradscore.errors import MismatchError, ModelError
from gradscore.triton.prototext import parse
from gradscore.triton.signature import Tensor, signature_of


def check_repository(folder: Path) -> None:
    """Compare a model folder's `config.pbtxt` with the inputs and outputs of its `1/model.onnx`.

    Raises
    ------
    MismatchError
        They differ, or the configuration names another model or backend, or no batching. The message states the first
        difference.
    ModelError
        The configuration is not protobuf text, or the model cannot be read.
    """
    path = folder / "config.pbtxt"
    try:
        fields = parse(path.read_text(encoding="utf-8"))
        (name,), (backend,) = fields.get("name", [""]), fields.get("backend", [""])
        (max_batch_size,) = map(int, fields.get("max_batch_size", ["0"]))
        told = [[_told(entry) for entry in fields.get(kind, [])] for kind in ("input", "output")]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is not protobuf text as Triton reads it: {error}") from error
    if name not in ("", folder.name):
        raise MismatchError(f"{path} names the model {name!r}, its folder is {folder.name!r}: rename one of them")
    if backend != "onnxruntime" or max_batch_size < 1:
        raise MismatchError(f'{path} must say backend: "onnxruntime" and a max_batch_size of 1 or more')
    for kind, listed, real in zip(("input", "output"), told, signature_of(folder / "1" / "model.onnx"), strict=True):
        if problem := _difference(kind, listed, real):
            raise MismatchError(f"{path} {problem}")


def _told(entry: Mapping[str, list[Any]]) -> Tensor:
    (name,), (data_type,) = entry["name"], entry["data_type"]
    dims = entry["reshape"][0].get("shape", []) if "reshape" in entry else entry.get("dims", [])
    return Tensor(name, data_type, tuple(map(int, dims)))


def _difference(kind: str, told: Sequence[Tensor], real: Sequence[Tensor]) -> str | None:
    listed, wanted = ({tensor.name: tensor for tensor in tensors} for tensors in (told, real))
    if listed.keys() != wanted.keys():
        return f"lists the {kind}s {sorted(listed)}, the model has {sorted(wanted)}"
    for name, tensor in wanted.items():
        if listed[name] != tensor:
            return f"says that {kind} {name!r} is {listed[name]}, the model's is {tensor}"
    return None
