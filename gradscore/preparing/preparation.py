"""classifier.onnx -> scoring model: the passes of `gradscore.graph` in order, and the file they make."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from gradscore.errors import InputError, ModelError
from gradscore.files.digest import sha256_of_files
from gradscore.files.writing import refuse_existing, replacing
from gradscore.graph.assemble.scoring_graph import build_scoring_graph
from gradscore.graph.checking import check_file, check_outputs
from gradscore.graph.differentiate.engines import ENGINES, GradientEngine
from gradscore.graph.layers.discovery import find_layers
from gradscore.graph.nodes.beside import weights_beside
from gradscore.graph.nodes.emitter import dtype_of, extents
from gradscore.graph.nodes.reading import read_classifier
from gradscore.graph.nodes.storing import write_model
from gradscore.graph.normalize.dialect import normalize
from gradscore.graph.normalize.head import cut_at, find_head
from gradscore.model.file_kinds import METADATA_KEY
from gradscore.model.metadata import CLASS_NAMES_KEY, ModelMetadata
from gradscore.model.preprocessing import ImageOptions, InputTensor
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
    """Turn a classifier's ONNX file into a scoring model, and return its metadata.

    Parameters
    ----------
    path, out
        The classifier, and the scoring model to write.
    logits
        Name of the output with the class scores, if the model has several outputs.
    class_names
        One name per class. By default, those that `export_classifier` stored in the file.
    scale, mean, std
        A pixel in 0..255 becomes (pixel · scale − mean) / std. `mean` and `std` hold one number per channel, or one for
        all. This and the other image options default to what `export_classifier` stored in the file. Without that, the
        defaults are 1/255, 0 and 1.
    color
        What to do with an image of another channel count. "strict", the default, makes it an error; "convert" converts
        it.
    resize, crop
        How to fit images of another size. `resize` is the new length of the shorter side, or the new height and width;
        `crop="center"` then cuts out the middle. This is what torchvision's Resize and CenterCrop do. By default,
        images are stretched to the model's size.
    interpolation
        "bilinear", the default, "bicubic", "lanczos" or "nearest".
    engine
        The gradient engine that differentiates the graph: "ort-training" or "onnx-ad".
    allow_uncovered
        Leave parameters that no rule covers out of the statistics, and list them in the metadata. By default, they are
        scored too, but the scoring model then takes one sample at a time.
    external_data
        Write large weights to a file beside the scoring model, even if one file could hold them. Processes that load it
        then share that memory. Models beyond protobuf's 2 GB are always written in this way.
    overwrite
        Replace `out` if it exists.

    Returns
    -------
    ModelMetadata
        What the scoring model says of itself, as written in its file.

    Raises
    ------
    ModelError
        The classifier cannot be read, does not run at several batch sizes, has no layer with weights, or has no output
        that can be the logits; or the scoring model fails its check.
    UnsupportedOpError
        The classifier has a node that no rule covers.
    InputError
        An option is invalid: the class names, the image options or the engine.
    BuilderError
        The gradient engine is not installed, or has failed.
    OutputExistsError
        `out` exists and `overwrite` is False.
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
    preprocessing = options.of_model(inputs)
    scoring = build_scoring_graph(model, whole.graph, head, found, inputs, _engine(engine))
    draw, signals = check_outputs(scoring, source, head)
    with (
        weights_beside(scoring.model, target, wanted=external_data) as weights,
        replacing(target, overwrite=overwrite) as part,
    ):
        metadata = ModelMetadata(
            source_sha256=fingerprint,
            inputs=inputs,
            logits=scoring.logits,
            classes=head.classes,
            layers=scoring.layers,
            backsteps=scoring.backsteps,
            class_names=tuple(names) if names else None,
            preprocessing=preprocessing,
            uncovered=uncovered,
            engine=engine,
            signal_bytes=sum(values.nbytes for name, values in signals.items() if name not in scoring.constants),
            one_at_a_time=scoring.one_at_a_time,
            outputs=scoring.outputs,
            dropped_outputs=tuple(name for name in declared if name not in scoring.outputs),
            weights_file=weights.name if weights is not None else "",
            weights_sha256=weights.sha256 if weights is not None else "",
            gradscore_version=__version__,
            seed=scoring.seed,
        )
        _write(scoring.model, metadata, part)
        del scoring, model, whole, found, head  # else a large model's weights would be in memory twice
        check_file(part, draw, signals, inputs)
    return metadata


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
        raise InputError(f"{len(names)} class names for {classes} classes: give one name per class with --class-names")
    if names is not None and (len(set(names)) != len(names) or not all(name.strip() for name in names)):
        raise InputError("class names repeat or are blank: each class needs a name of its own")
