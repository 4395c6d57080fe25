"""Verdict files: an ONNX model with metadata, written by atomic rename and checked before it runs."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from gradscore.errors import ModelError
from gradscore.files.writing import replacing
from gradscore.model.file_kinds import METADATA_KEY, FileKind
from gradscore.verdict.learning.verdict_nodes import INPUT, IR_VERSION, OPERATORS, OPSET, OUTPUT, VERDICT_OUTPUTS

SCHEMA_VERSION = 2
OUTPUTS_OF = {1: (OUTPUT,), SCHEMA_VERSION: VERDICT_OUTPUTS}  # by schema version: those that can be read
LARGEST_FILE = 64 * 2**20


def assemble(graph: onnx.GraphProto, metadata: Mapping[str, Any]) -> onnx.ModelProto:
    """Return the ONNX model of a graph, with metadata and a digest in `metadata_props`.

    Its schema version is the one that has the graph's outputs.
    """
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="gradscore")
    version = next(version for version, outputs in OUTPUTS_OF.items() if len(outputs) == len(graph.output))
    whole = {"kind": FileKind.VERDICT.value, "schema_version": version, **metadata}
    helper.set_model_props(model, {METADATA_KEY: json.dumps({**whole, "digest": _digest(graph, whole)})})
    return model


def save(model: onnx.ModelProto, path: Path, *, overwrite: bool) -> None:
    """Write a model by atomic rename.

    Raises
    ------
    OutputExistsError
        `path` exists and `overwrite` is False.
    """
    with replacing(path, overwrite=overwrite) as part:
        part.write_bytes(model.SerializeToString(deterministic=True))


def load(path: Path) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Read and check a verdict file, and return its model and metadata.

    Raises
    ------
    ModelError
        The file is missing, too large, not ONNX, not a verdict, of another schema version, or changed after it was
        written; or it holds operators, names or shapes that no verdict has.
    """
    if not path.is_file():
        raise ModelError(f"no such verdict: {path}; `gradscore fit SCORES -o {path}` writes one")
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise ModelError(f"{path} has {size:,} bytes; a verdict has at most {LARGEST_FILE:,}, so this is another file")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as cause:  # protobuf's DecodeError has no stable import path across its implementations
        raise ModelError(f"{path} is not an ONNX file: {cause}") from cause
    metadata = _metadata(model, path)
    if problem := _foreign(model) or _incomplete(metadata) or _misshapen(model, metadata) or _changed(model, metadata):
        raise ModelError(f"{path} is not a verdict as gradscore writes it: {problem}. Do not use it; fit it again")
    return model, metadata


def _metadata(model: onnx.ModelProto, path: Path) -> dict[str, Any]:
    text = next((prop.value for prop in model.metadata_props if prop.key == METADATA_KEY), None)
    try:
        metadata = json.loads(text) if text else None
    except ValueError as cause:
        raise ModelError(f"{path} has `gradscore` metadata that is not JSON; fit the verdict again") from cause
    if not isinstance(metadata, dict) or metadata.get("kind") != FileKind.VERDICT:
        kind = f"a {metadata['kind']}" if isinstance(metadata, dict) and "kind" in metadata else "another model"
        raise ModelError(f"{path} is {kind}, not a verdict; `gradscore fit SCORES -o VERDICT.onnx` writes verdicts")
    if (version := metadata.get("schema_version")) not in OUTPUTS_OF:
        raise ModelError(f"{path} has verdict schema {version}; this gradscore reads {SCHEMA_VERSION}: fit it again")
    return metadata


def _foreign(model: onnx.ModelProto) -> str | None:
    """Return what in the model no verdict has, or None.

    Examples are foreign operators, and weights in another file.
    """
    graph = model.graph
    domains = sorted({opset.domain for opset in model.opset_import} | {node.domain for node in graph.node})
    if domains != [""]:
        return f"it uses operator domains {domains}"
    if model.functions or model.training_info or graph.sparse_initializer:
        return "it has functions, training information or sparse weights"
    if strange := sorted({node.op_type for node in graph.node} - OPERATORS):
        return f"it uses the operator {strange[0]}"
    simple = (onnx.AttributeProto.INT, onnx.AttributeProto.FLOAT, onnx.AttributeProto.INTS)
    if nested := next((node.name for node in graph.node for one in node.attribute if one.type not in simple), None):
        return f"node {nested} has an attribute that is not a number"
    if any(one.external_data or one.data_location == TensorProto.EXTERNAL for one in graph.initializer):
        return "its weights are in another file"
    return None


def _incomplete(metadata: Mapping[str, Any]) -> str | None:
    """Return which part of the metadata is missing or has the wrong type, or None."""
    names, threshold = metadata.get("feature_names"), metadata.get("threshold")
    whole = {
        "feature names": isinstance(names, list) and names and all(isinstance(name, str) for name in names),
        "model fingerprint": isinstance(metadata.get("model_fingerprint"), str),
        "method": isinstance(metadata.get("method"), str),
        "decision threshold": isinstance(threshold, float) and math.isfinite(threshold),
        "training summary": isinstance(metadata.get("summary"), dict),
    }
    return next((f"its metadata has no {part}" for part, there in whole.items() if not there), None)


def _misshapen(model: onnx.ModelProto, metadata: Mapping[str, Any]) -> str | None:
    """Return how the graph differs from a valid one, or None.

    A valid graph has one input `features` [N, F], and the outputs of its schema version, each [N].
    """
    inputs = {INPUT: ("N", len(metadata["feature_names"]))}
    outputs = dict.fromkeys(OUTPUTS_OF[metadata["schema_version"]], ("N",))
    for kind, values, wanted in (("input", model.graph.input, inputs), ("output", model.graph.output, outputs)):
        found = {value.name: _shape(value) for value in values}
        if found != wanted:
            return f"its {kind} is {found}, not {wanted} in double precision"
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as cause:
        return f"its graph is invalid ({str(cause).splitlines()[0]})"
    return None


def _shape(value: onnx.ValueInfoProto) -> tuple[str | int, ...] | None:
    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.DOUBLE:
        return None
    return tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)


def _changed(model: onnx.ModelProto, metadata: Mapping[str, Any]) -> str | None:
    rest = {key: value for key, value in metadata.items() if key != "digest"}
    return None if metadata.get("digest") == _digest(model.graph, rest) else "it was changed after it was written"


def _digest(graph: onnx.GraphProto, metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 of graph and metadata.

    It detects damage and edits, but is no protection against forgery.
    """
    text = json.dumps(metadata, sort_keys=True).encode()
    return hashlib.sha256(graph.SerializeToString(deterministic=True) + text).hexdigest()
