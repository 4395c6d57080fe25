"""classifier.onnx -> scoring model: the passes of `gradscore.graph` in order, and the file they make."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from gradscore.errors import InputError, ModelError
from gradscore.files.digest import sha256_of_files
from gradscore.files.writing import refuse_existing, replacing
from gradscore.graph.assemble.outputs import keep_outputs
from gradscore.graph.checking import check_file, check_outputs
from gradscore.graph.differentiate.engines import ENGINES, GradientEngine
from gradscore.graph.differentiate.gradient import add_gradient, values_of
from gradscore.graph.layers.discovery import FoundLayer, find_layers
from gradscore.graph.layers.forms import Scope, Whole
from gradscore.graph.lower.lowering import lower
from gradscore.graph.lower.unpooling import keep_pooled
from gradscore.graph.nodes.beside import weights_beside
from gradscore.graph.nodes.emitter import dtype_of, extents
from gradscore.graph.nodes.reading import read_classifier
from gradscore.graph.nodes.storing import write_model
from gradscore.graph.normalize.dialect import infer_shapes, normalize
from gradscore.graph.normalize.head import Head, append_seed, cut_at, find_head
from gradscore.model.metadata import (
    CLASS_NAMES_KEY,
    METADATA_KEY,
    InputTensor,
    ModelMetadata,
)
from gradscore.model.preprocessing import ImageOptions
from gradscore.version import __version__


def prepare(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    logits: str | None = None,
    class_names: Sequence[str] | None = None,
    scale: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    color: str | None = None,
    resize: Sequence[int] | None = None,
    crop: str | None = None,
    interpolation: str | None = None,
    engine: str = "ort-training",
    allow_uncovered: bool = False,
    external_data: bool = False,
    overwrite: bool = False,
) -> ModelMetadata:
    """Turn a classifier's ONNX file into a scoring model and return what is written about it.

    Parameters
    ----------
    path, out
        The classifier, and the scoring model to write.
    logits
        Name of the output with the class scores, where the model has several.
    class_names
        One name a class; by default those that `export_classifier` left in the file.
    scale, mean, std
        A pixel of 0..255 becomes (pixel · scale − mean) / std, per channel or one number for all. Like the other
        options of images, by default what the exporter left in the file, else 1/255, 0 and 1.
    color
        "strict", the default: an image of another channel count is an error; "convert": it is converted.
    resize, crop
        Images of another size are stretched to the model's, or with "center" as `crop` cut out of the middle, after
        their shorter side, or height and width, became `resize`: what torchvision's Resize and CenterCrop do.
    interpolation
        "bilinear", the default, "bicubic", "lanczos" or "nearest".
    engine
        Which gradient engine differentiates the graph.
    allow_uncovered
        Leave parameters without a rule out of the statistics and list them in the metadata, instead of refusing.
    external_data
        Write large weights into a file beside the scoring model even where one file could hold them: processes that
        load it then share their memory. Models beyond protobuf's 2 GB are always written so.

    Raises
    ------
    ModelError, UnsupportedOpError, BuilderError, OutputExistsError
    """
    source, target = Path(path), Path(out)
    refuse_existing(target, overwrite=overwrite)
    classifier = read_classifier(source)
    names = class_names if class_names is not None else _names_in(classifier.proto)
    options = ImageOptions.from_properties(
        {entry.key: entry.value for entry in classifier.proto.metadata_props}
    ).changed(scale=scale, mean=mean, std=std, color=color, resize=resize, crop=crop, interpolation=interpolation)
    declared = [output.name for output in classifier.proto.graph.output]
    fingerprint = sha256_of_files(*classifier.files)
    model = normalize(classifier.proto, classifier.weights)
    del classifier
    head = find_head(model.graph, logits)
    _check_class_names(names, head.classes)
    whole = model.clone()
    cut_at(model, head.logits)
    found, uncovered = find_layers(model.graph, allow_uncovered=allow_uncovered)
    inputs = _inputs(model.graph)
    metadata = ModelMetadata(
        source_sha256=fingerprint,
        inputs=inputs,
        logits=str(head.logits.name),
        classes=head.classes,
        class_names=tuple(names) if names else None,
        layers=(),
        uncovered=uncovered,
        preprocessing=options.of_model(inputs),
        engine=engine,
        one_at_a_time=any(isinstance(item.form, Whole) for layer in found for item in layer.parameters),
        gradscore_version=__version__,
    )
    scoring, metadata = _scoring_model(model, whole.graph, head, found, metadata)
    dropped = tuple(name for name in declared if name not in metadata.outputs)
    metadata = replace(metadata, dropped_outputs=dropped)
    draw, signals = check_outputs(scoring, source, head, metadata)
    of_samples = (values.nbytes for name, values in signals.items() if name not in metadata.constants)
    metadata = replace(metadata, signal_bytes=sum(of_samples))
    with (
        weights_beside(scoring, target, wanted=external_data) as weights,
        replacing(target, overwrite=overwrite) as part,
    ):
        if weights is not None:
            metadata = replace(metadata, weights_file=weights.name, weights_sha256=weights.sha256)
        _write(scoring, metadata, part)
        del scoring, model, whole, found, head  # a large model's weights would stand in memory twice
        check_file(part, draw, signals, metadata)
    return metadata


def _scoring_model(
    model: ir.Model, whole: ir.Graph, head: Head, found: tuple[FoundLayer, ...], metadata: ModelMetadata
) -> tuple[ir.Model, ModelMetadata]:
    """Differentiate, lower and seed.

    Returns the model, and the metadata with its layers and backsteps, which name the final values, and with those outputs
    of the whole classifier that it still has.
    """
    forms = [parameter.form for layer in found for parameter in layer.parameters]
    gradient = add_gradient(model, head.logits, forms, _engine(metadata.engine))
    scoring, graph = gradient.model, gradient.model.graph
    unpooled, steps = keep_pooled(gradient, forms)
    lower(scoring)
    label = append_seed(graph, gradient.logits, gradient.seed, head.classes)
    graph.inputs.remove(gradient.seed)
    scope = Scope(graph, values_of(graph), gradient.deltas, unpooled)
    final_logits = gradient.logits
    metadata = replace(
        metadata,
        layers=tuple(layer.finished(scope) for layer in found),
        backsteps=tuple(step.backstep(scope) for step in steps),
    )
    own = keep_outputs(graph, whole)
    graph.outputs.clear()
    graph.outputs.extend(dict.fromkeys([final_logits, label, *_signals(graph, metadata), *own]))
    common_passes.RemoveUnusedNodesPass()(scoring)
    common_passes.TopologicalSortPass()(scoring)
    return infer_shapes(scoring), replace(metadata, outputs=tuple(str(value.name) for value in own))


def _signals(graph: ir.Graph, metadata: ModelMetadata) -> list[ir.Value]:
    """Return each value that the kernels read and the graph computes; the model's input is at hand without being an output."""
    values = {value.name: value for node in graph for value in node.outputs}
    return [values[name] for name in metadata.read_values if name in values]


def _write(scoring: ir.Model, metadata: ModelMetadata, path: Path) -> None:
    scoring.producer_name, scoring.producer_version = "gradscore", metadata.gradscore_version
    scoring.metadata_props.clear()
    scoring.metadata_props[METADATA_KEY] = metadata.to_json()
    write_model(scoring, path, metadata.weights_file or None)


def _engine(name: str) -> GradientEngine:
    if name not in ENGINES:
        raise InputError(f"there is no gradient engine {name!r}: --engine takes {', '.join(ENGINES)}")
    return ENGINES[name]


def _inputs(graph: ir.Graph) -> tuple[InputTensor, ...]:
    found = []
    for value in graph.inputs:
        known = (extents(value) or ())[1:]
        found.append(InputTensor(str(value.name), (None, *known), str(dtype_of(value))))
    return tuple(found)


def _names_in(classifier: onnx.ModelProto) -> list[str] | None:
    for entry in classifier.metadata_props:
        if entry.key == CLASS_NAMES_KEY:
            try:
                names = json.loads(entry.value)
            except ValueError as error:
                raise ModelError(f"the model's {CLASS_NAMES_KEY} is not JSON ({error}): give --class-names") from error
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ModelError(f"the model's {CLASS_NAMES_KEY} is not a list of names: give --class-names")
            return names
    return None


def _check_class_names(names: Sequence[str] | None, classes: int) -> None:
    if names is not None and len(names) != classes:
        raise InputError(f"{len(names)} class names for {classes} classes: give one name a class with --class-names")
    if names is not None and (len(set(names)) != len(names) or not all(name.strip() for name in names)):
        raise InputError("class names repeat or are blank: each class needs a name of its own")
