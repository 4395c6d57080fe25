"""What a file means: digests of its arrays, columns and graph, and its JSON as it stands, free of what two runs never share.

Left out, and nothing else:

- times: `seconds`, `images_per_second`;
- the user's home folder in what is printed;
- the version that wrote a file: `gradscore_version`, `gradscore` in a run's identity and a fit's versions, the producer's
  version in models of ours;
- in a classifier, torch's notes on where its source code lies: the values of `SOURCE_NOTES`;
- what follows from those: a verdict's `digest` over its own metadata, and size and SHA-256 of shards (`verify`
  compares them with the files). The SHA-256 of a file of the recording stands as that file's name, so that what names a
  model must name the very one;
- how the rows of a joined table lay in shards, which a busy machine finishes early: their sums stand for them.
"""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

TIMES = frozenset({"seconds", "images_per_second"})
VERSIONS = frozenset({"gradscore_version", "gradscore"})
SEALS = frozenset({"digest"})
OF_SHARDS = frozenset({"size", "sha256"})
SOURCE_NOTES = frozenset({"namespace", "pkg.torch.onnx.class_hierarchy", "pkg.torch.onnx.stack_trace"})
MANIFEST = "gradscore.manifest"  # where a joined Parquet file carries the manifest of its run
SHA256 = re.compile(r"[0-9a-f]{64}")


class Meaning:
    """Digests of files of one recording."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, str] = {}
        self._hashed: set[Path] = set()

    def of(self, path: Path) -> Any:
        """Return what a file or folder means, as plain values for JSON; for one that is not there, that."""
        if path.is_dir():
            return {inner.name: self.of(inner) for inner in sorted(path.iterdir())}
        if not path.exists():
            return "no such file"
        return self._readers().get(path.suffix, of_bytes)(path)

    def of_json(self, value: Any) -> Any:
        """Return a JSON value without what differs from run to run."""
        if isinstance(value, Mapping):
            left_out = TIMES | VERSIONS | SEALS | (OF_SHARDS if {"file", "rows"} <= value.keys() else frozenset())
            kept = {key: inner for key, inner in value.items() if key not in left_out or isinstance(inner, Mapping)}
            return {key: self.of_json(inner) for key, inner in kept.items()}
        if isinstance(value, list):
            return [self.of_json(inner) for inner in value]
        return self._named(value) if isinstance(value, str) and SHA256.fullmatch(value) else value

    def _of_manifest(self, text: str) -> Any:
        """Return the manifest of a joined table: the sums of its shards."""
        raw = json.loads(text)
        shards = raw.pop("shards")
        sums = {key: sum(shard[key] for shard in shards) for key in ("rows", "failed", "not_finite")}
        errors = [shard["first_error"] for shard in shards if shard["first_error"] is not None]
        return self.of_json({**raw, **sums, "first_error": next(iter(errors), None)})

    def of_text(self, text: str) -> Any:
        """Return JSON as `of_json` does, other text as it is but for the home folder."""
        try:
            return self.of_json(json.loads(text))
        except ValueError:
            return text.replace(str(Path.home()), "~")

    def of_stream(self, content: bytes) -> dict[str, Any]:
        """Return what a stream of Arrow tables means."""
        return self.of_table(pa.ipc.open_stream(io.BytesIO(content)).read_all())

    def of_table(self, table: pa.Table) -> dict[str, Any]:
        """Return digests of columns, in order, and the metadata of their schema."""
        notes = {key.decode(): self.of_text(text.decode()) for key, text in (table.schema.metadata or {}).items()}
        columns = {name: _of_column(table.column(name)) for name in table.column_names}
        return {"order": ", ".join(table.column_names), "rows": len(table), "columns": columns, "metadata": notes}

    def _readers(self) -> Mapping[str, Any]:
        return {
            ".onnx": self._of_model, ".parquet": self._of_parquet, ".arrow": self._of_arrow, ".npz": _of_arrays,
            ".json": lambda path: self.of_text(path.read_text(encoding="utf-8")),
        }  # fmt: skip

    def _of_model(self, path: Path) -> dict[str, Any]:
        proto = onnx.load(path)
        notes = {entry.key: self.of_text(entry.value) for entry in proto.metadata_props}
        proto.ClearField("metadata_props")
        if proto.producer_name == "gradscore":
            proto.ClearField("producer_version")
        for node in _nodes(proto.graph):
            for entry in node.metadata_props:
                if entry.key in SOURCE_NOTES:
                    entry.value = ""
        parts = {"nodes": [*proto.graph.node], "weights": [*proto.graph.initializer]}
        proto.graph.ClearField("node")
        proto.graph.ClearField("initializer")
        digests = {name: _of_messages(messages) for name, messages in parts.items()}
        return {**digests, "the rest of the graph": _of_messages([proto]), "metadata": notes}

    def _of_parquet(self, path: Path) -> dict[str, Any]:
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
            stored = sorted({group.column(i).compression for group in groups for i in range(group.num_columns)})
            texts = {key.decode(): text.decode() for key, text in (file.metadata.metadata or {}).items()}
            texts.pop("ARROW:schema", None)  # the columns again
            notes = {
                key: self._of_manifest(text) if key == MANIFEST else self.of_text(text) for key, text in texts.items()
            }
            table = self.of_table(file.read())
        return table | {"metadata": notes, "row groups": [group.num_rows for group in groups], "compression": stored}

    def _of_arrow(self, path: Path) -> dict[str, Any]:
        with pa.ipc.open_stream(path) as reader:
            return self.of_table(reader.read_all())

    def _named(self, digest: str) -> str:
        """Return the name of the model, or file beside one, that has this SHA-256; what else it is stays as it is."""
        if digest not in self._names:
            for path in sorted({*self._root.rglob("*.onnx*")} - self._hashed):
                self._hashed.add(path)
                self._names.setdefault(_sha256(path.read_bytes()), str(path.relative_to(self._root)))
        return f"SHA-256 of {self._names[digest]}" if digest in self._names else digest


def of_bytes(path: Path) -> str:
    """Return a digest of a file's bytes."""
    return _sha256(path.read_bytes())


def of_array(array: NDArray[Any]) -> str:
    """Return type, shape and a digest of the numbers' bytes."""
    return f"{array.dtype} {list(array.shape)} {_sha256(np.ascontiguousarray(array).tobytes())[:32]}"


def _of_arrays(path: Path) -> dict[str, str]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: of_array(arrays[name]) for name in arrays.files}


def _of_column(column: pa.ChunkedArray) -> str:
    """Return type, number of nulls and a digest of a column's values; nulls count as such, whatever lies below them."""
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        there = column.is_valid().to_numpy().tobytes()
        content = there + column.fill_null(pa.scalar(0).cast(kind)).to_numpy().tobytes()
    else:
        content = json.dumps(column.to_pylist()).encode()
    return f"{kind}, {column.null_count} nulls, {_sha256(content)[:32]}"


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes of a graph and of those inside its nodes."""
    found = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                found += _nodes(inner)
    return found


def _of_messages(messages: list[Any]) -> str:
    content = hashlib.sha256()
    for message in messages:
        content.update(message.SerializeToString(deterministic=True))
    return f"{len(messages)}, {content.hexdigest()[:32]}"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
