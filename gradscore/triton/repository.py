"""Writes a model repository for Triton Inference Server.

The configuration is protobuf text, as the server's `model_config.proto` defines it. Axis 0 of every tensor is the
batch, which `dims` leaves out. The server knows no empty shape, so a tensor of shape [batch] has `dims: [ 1 ]`,
reshaped to nothing. Clients see it as [batch, 1].
"""

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from gradscore.errors import InputError
from gradscore.files.writing import refuse_existing, replacing
from gradscore.triton.signature import Tensor, signature_of

MAX_BATCH_SIZE = 64
MAX_QUEUE_DELAY_MICROSECONDS = 500


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

    Each file gets its name only when it is complete, the model last. So a folder without the model is not complete.

    Parameters
    ----------
    model
        An ONNX file without external data, whose batch axis is free.
    repository
        The repository's folder.
    name
        What clients call the model. By default, the file's name without its ending.
    max_batch_size
        The most samples that the server joins into one batch.
    max_queue_delay_microseconds
        How long a request may wait for others to join its batch.
    overwrite
        Replace the files if they exist.

    Returns
    -------
    Path
        The model's folder, `repository/name`.

    Raises
    ------
    InputError
        The name cannot be a folder's, or the batch size is not positive.
    ModelError
        An input or output has no free batch axis, no known rank, or a type that the server lacks.
    OutputExistsError
        One of the files exists and `overwrite` is False.
    """
    name = model.stem if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9_][\w.-]*", name, re.ASCII):
        raise InputError(f"{name!r} cannot name a Triton model: use letters, digits, '.', '_' and '-'")
    if max_batch_size < 1:
        raise InputError(f"max_batch_size is {max_batch_size}: give at least 1")
    inputs, outputs = signature_of(model)
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
    target = folder / "1" / "model.onnx"
    target.parent.mkdir(parents=True, exist_ok=True)
    for file in (folder / "config.pbtxt", target):
        refuse_existing(file, overwrite=overwrite)
    with replacing(folder / "config.pbtxt", overwrite=overwrite) as part:
        part.write_text(config, encoding="utf-8")
    with replacing(target, overwrite=overwrite) as part:
        shutil.copyfile(model, part)
    return folder


def _listed(kind: str, tensors: Iterable[Tensor]) -> str:
    return f"{kind} [\n" + ",\n".join(map(_entry, tensors)) + "\n]"


def _entry(tensor: Tensor) -> str:
    lines = [f"name: {_quoted(tensor.name)}", f"data_type: {tensor.data_type}"]
    lines.append(f"dims: [ {', '.join(map(str, tensor.dims or (1,)))} ]")
    if not tensor.dims:
        lines.append("reshape { shape: [ ] }")
    return "  {\n" + "".join(f"    {line}\n" for line in lines) + "  }"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
