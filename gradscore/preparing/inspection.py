"""Describes models and this installation, as plain values ready for JSON."""

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gradscore.errors import GradscoreError
from gradscore.files.digest import sha256_of_file
from gradscore.graph.differentiate import builder
from gradscore.model.file_kinds import FileKind
from gradscore.model.layer_table import Parameter
from gradscore.model.metadata import ModelMetadata
from gradscore.model.model_file import identify, read_metadata, read_self_scoring
from gradscore.model.selfscoring import MEANINGS, SelfScoringMetadata
from gradscore.model.weights import require_weights
from gradscore.runtime.session import installed_runtimes, load_onnxruntime
from gradscore.version import __version__

_PACKAGES = ("numpy", "onnx", "numba", "pyarrow", "pillow", "scikit-learn", "torch")


def inspect_model(path: Path) -> dict[str, Any]:
    """Describe a scoring model: inputs, classes, layers, every parameter with its coverage, fingerprint.

    For a self-scoring model: inputs, outputs, the files that it is made of, and its cost beside the plain classifier's.

    Raises
    ------
    ModelError
        The file is neither a scoring model nor a self-scoring model.
    """
    if identify(path) is FileKind.SELF_SCORING:
        return _self_scoring(path, read_self_scoring(path))
    metadata = read_metadata(path)
    require_weights(path, metadata)
    parameters = [_described(layer.name, layer.op, item) for layer in metadata.layers for item in layer.parameters]
    covered = sum(item["count"] for item in parameters)
    uncovered = [_described("", "", item) for item in metadata.uncovered]
    total = covered + sum(item["count"] for item in uncovered)
    return {
        "kind": "scoring",
        "path": str(path),
        "fingerprint": sha256_of_file(path),
        "source_sha256": metadata.source_sha256,
        "inputs": [{"name": item.name, "shape": _shape(item.shape), "dtype": item.dtype} for item in metadata.inputs],
        "classes": metadata.classes,
        "class_names": [metadata.label_name(label) for label in range(metadata.classes)],
        "preprocessing": _preprocessing(metadata),
        "features": len(metadata.feature_names),
        "engine": metadata.engine,
        "gradscore_version": metadata.gradscore_version,
        "layers": [layer.name for layer in metadata.layers],
        "parameters": [*parameters, *uncovered],
        "weights": total,
        "covered_share": covered / total if total else 0.0,
    }


def examine_installation() -> dict[str, Any]:
    """Describe versions, runtimes, providers and kernel back ends; `problems` lists what is wrong."""
    import gradscore_kernels as kernels  # noqa: PLC0415 - loads back ends

    problems: list[str] = []
    providers: list[str] = []
    try:
        providers = list(load_onnxruntime().get_available_providers())
    except GradscoreError as error:
        problems.append(str(error))
    status = builder.status()
    notes = [] if status.installed else ["preparing models needs `gradscore builder install` once"]
    if "native" not in kernels.available_backends():
        notes.append("no native kernels: a C++ compiler was missing at install time, so the numba back end is used")
    return {
        "gradscore": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": kernels.usable_cores(),
        "packages": {name: _version_of(name) for name in _PACKAGES},
        "runtimes": {name: _version_of(name) for name in installed_runtimes()},
        "providers": providers,
        "backends": list(kernels.available_backends()),
        "default_backend": kernels.default_backend(),
        "simd": kernels.simd_level() if "native" in kernels.available_backends() else None,
        "builder": {"version": status.version, "installed": status.installed, "path": str(status.path)},
        "notes": notes,
        "problems": problems,
    }


def _self_scoring(path: Path, metadata: SelfScoringMetadata) -> dict[str, Any]:
    import onnx_ir as ir  # noqa: PLC0415 - heavy

    from gradscore.graph.nodes.cost import costs  # noqa: PLC0415 - loads onnx

    model = ir.load(path)
    whole, plain = costs(model, metadata.outputs, metadata.inputs)
    added = {output: name for name, output in metadata.added.items()}
    return {
        "path": str(path),
        "fingerprint": sha256_of_file(path),
        **asdict(metadata),
        "inputs": [{"name": item.name, "shape": _shape(item.shape), "dtype": item.dtype} for item in metadata.inputs],
        "class_names": list(metadata.class_names or map(str, range(metadata.classes))),
        "outputs": [
            {
                "name": value.name,
                "meaning": MEANINGS.get(added.get(str(value.name), ""), "the classifier's own"),
                "dtype": str(value.dtype.numpy()) if value.dtype is not None else "?",
                "shape": [extent if isinstance(extent, int) else str(extent) for extent in value.shape or ()],
            }
            for value in model.graph.outputs
        ],
        "cost": {
            "self_scoring": {**asdict(whole), "file_bytes": path.stat().st_size},
            "classifier": asdict(plain),
            "added_nodes": whole.nodes - plain.nodes,
            "added_weight_bytes": whole.weight_bytes - plain.weight_bytes,
            "flops_ratio": whole.flops / max(1, plain.flops),
        },
    }


def _described(layer: str, op: str, parameter: Parameter) -> dict[str, Any]:
    return {
        "layer": layer,
        "op": op,
        "name": parameter.name,
        "shape": list(parameter.shape),
        "count": parameter.count,
        "coverage": parameter.coverage,
    }


def _shape(extents: tuple[int | None, ...]) -> list[int | str]:
    return ["batch" if axis == 0 else extent or "?" for axis, extent in enumerate(extents)]


def _preprocessing(metadata: ModelMetadata) -> str:
    how = metadata.preprocessing
    if how.kind == "array":
        return "arrays, taken as they are"
    mean, std = (" ".join(f"{number:g}" for number in numbers) for numbers in (how.mean, how.std))
    size = f"{how.channels}×{how.height}×{how.width}"
    resize = f", resize {'x'.join(map(str, how.resize))}" if how.resize else ""
    crop = f", crop {how.crop}" if how.crop != "none" else ""
    return (
        f"{size} images{resize}{crop}, {how.interpolation}, (pixel · {how.scale:.6g} − {mean}) / {std}, "
        f"color {how.color}"
    )


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
