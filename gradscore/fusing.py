"""scoring model + verdict -> one self-scoring model: a classifier that knows its own doubt and needs nothing of ours to run."""

import gc
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from gradscore.digest import sha256_of_file
from gradscore.errors import InputError, ModelError
from gradscore.features import require_same_model
from gradscore.graph.emitter import Emitter
from gradscore.graph.gradient import values_of
from gradscore.graph.head_statistics import append_head
from gradscore.graph.joining import FeatureTable, add_output, append_features
from gradscore.graph.normalize import infer_shapes
from gradscore.graph.probing import BATCH, random_input
from gradscore.graph.storing import write_model
from gradscore.metadata import METADATA_KEY, SIGNAL_LABEL, ModelMetadata
from gradscore.scoring import Scorer
from gradscore.selfscoring import SelfScoringMetadata
from gradscore.session import open_session
from gradscore.verdict.inlining import inline_verdict, used_features
from gradscore.verdict.model import Verdict
from gradscore.version import __version__
from gradscore.weights import require_weights
from gradscore.writing import refuse_existing, replacing

_RTOL = 1e-3


def fuse(
    scoring: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    verdict: Verdict | str | os.PathLike[str] | None = None,
    features: Sequence[str] = (),
    drop_outputs: bool = False,
    overwrite: bool = False,
) -> SelfScoringMetadata:
    """Join a scoring model and a verdict into one ONNX file of standard operators; returns what is written about it.

    The file has the classifier's own inputs and outputs, then `label` int64 [B], with a verdict `p_correct` float32 [B] and
    `accept` bool [B], then `entropy`, `max_softmax`, `residual` float32 [B], and with `features` these as `features` float32
    [B, F]. Only what these need is computed.

    Parameters
    ----------
    scoring, out
        The scoring model, and the file to write.
    verdict
        A verdict fitted to that scoring model's features, or its file.
    features
        Patterns such as "fc.*" of the features to put out; "*" for all.
    drop_outputs
        Go without those of the classifier's outputs that standard operators cannot make, instead of refusing.

    Raises
    ------
    ModelError, InputError, MismatchError, UnsupportedOpError, OutputExistsError
    """
    source, target = Path(scoring), Path(out)
    refuse_existing(target, overwrite=overwrite)
    known = _metadata_of(source)
    _check_fusible(known, source, drop_outputs=drop_outputs)
    judge = verdict if isinstance(verdict, Verdict) or verdict is None else Verdict.load(Path(verdict))
    if judge is not None:
        require_same_model(judge.model_fingerprint, sha256_of_file(source), "the verdict", str(source))
    chosen = _chosen(known, features)
    model = ir.load(source)
    metadata = _join(model, known, judge, chosen, sha256_of_file(source))
    with replacing(target, overwrite=overwrite) as part:
        model.metadata_props.clear()
        model.metadata_props[METADATA_KEY] = metadata.to_json()
        write_model(model, part)
        del model
        gc.collect()
        _check(part, source, metadata, judge)
    return metadata


def _metadata_of(path: Path) -> ModelMetadata:
    """Read a scoring model's metadata."""
    scorer = Scorer.load(path)
    scorer.close()
    return scorer.metadata


def _check_fusible(known: ModelMetadata, path: Path, *, drop_outputs: bool) -> None:
    if not known.outputs and not known.dropped_outputs:
        raise ModelError(f"{path} was prepared before `fuse` was there and lacks the classifier's outputs: prepare it again")
    if known.dropped_outputs and not drop_outputs:
        raise ModelError(
            f"output {known.dropped_outputs[0]!r} of the classifier needs more than standard operators and a batch of any "
            "size: --drop-outputs goes without it"
        )
    summed = [layer.name for layer in known.layers if any(item.kernel == "whole" for item in layer.reductions)]
    if summed:
        raise ModelError(
            f"the gradient of layer {summed[0]!r} comes one sample at a time, which no batch can hold: "
            "`gradscore prepare --allow-uncovered` leaves such parameters out"
        )


def _chosen(known: ModelMetadata, patterns: Sequence[str]) -> tuple[str, ...]:
    names = known.feature_names
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"no feature matches {pattern!r} (--features): the model has {', '.join(names[:5])}, …")
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))


def _join(
    model: ir.Model, known: ModelMetadata, verdict: Verdict | None, chosen: tuple[str, ...], fingerprint: str
) -> SelfScoringMetadata:
    """Append statistics and verdict, and leave nothing that no output needs."""
    infer_shapes(model)
    graph = model.graph
    used = used_features(verdict) if verdict is not None else ()
    values = values_of(graph)
    label = values[SIGNAL_LABEL]
    head = append_head(graph, values[known.logits], label, known.classes)
    table = append_features(graph, known.layers, head, (*chosen, *used))
    own = {value.name: value for value in graph.outputs if value.name in known.outputs}
    graph.outputs.clear()
    graph.outputs.extend(own[name] for name in known.outputs)
    added = {"label": add_output(graph, label, "label", ir.DataType.INT64, [BATCH])}
    if verdict is not None:
        p_correct = inline_verdict(graph, verdict, table.take(used))
        accept = table.emit("GreaterOrEqual", p_correct, table.emit.constant(verdict.threshold, np.float64))
        added["p_correct"] = _add_float(graph, table, p_correct, "p_correct", [BATCH])
        added["accept"] = add_output(graph, accept, "accept", ir.DataType.BOOL, [BATCH])
    for name in ("entropy", "max_softmax", "residual"):
        flat = table.emit("Squeeze", getattr(head, name).value, table.emit.integers(1))
        added[name] = _add_float(graph, table, flat, name, [BATCH])
    if chosen:
        added["features"] = _add_float(graph, table, table.take(chosen), "features", [BATCH, len(chosen)])
    common_passes.RemoveUnusedNodesPass()(model)
    common_passes.TopologicalSortPass()(model)
    return SelfScoringMetadata(
        source_sha256=known.source_sha256,
        scoring_sha256=fingerprint,
        inputs=known.inputs,
        classes=known.classes,
        outputs=known.outputs,
        added=added,
        class_names=known.class_names,
        preprocessing=known.preprocessing,
        feature_names=chosen,
        used_features=used,
        threshold=None if verdict is None else verdict.threshold,
        verdict=None if verdict is None else {"method": verdict.method},
        gradscore_version=__version__,
    )


def _add_float(graph: ir.Graph, table: FeatureTable, value: ir.Value, name: str, shape: Sequence[str | int]) -> str:
    return add_output(graph, table.emit("Cast", value, to=ir.DataType.FLOAT), name, ir.DataType.FLOAT, shape)


def _check(path: Path, scoring: Path, metadata: SelfScoringMetadata, verdict: Verdict | None) -> None:
    """Prove the written file: valid ONNX, and of random inputs it says what scoring model and verdict say."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"the self-scoring model is invalid ({str(error).strip().splitlines()[0]}): please report it") from error
    batch = {item.name: random_input(item.shape, np.dtype(item.dtype), 3) for item in metadata.inputs}
    names = [*metadata.outputs, *metadata.added.values()]
    found = dict(zip(names, open_session(path).run(names, batch), strict=True))
    added = {name: found[output] for name, output in metadata.added.items()}
    plain = open_session(scoring).run(list(metadata.outputs), batch)
    with Scorer.load(scoring) as scorer:
        scores = scorer.score(batch)
    expected = {name: scores[name] for name in ("entropy", "max_softmax", "residual")}
    expected |= dict(zip(metadata.outputs, plain, strict=True))
    if verdict is not None:
        expected["p_correct"] = verdict.apply(scores.features)
    for name, wanted in expected.items():
        actual = added[name] if name not in metadata.outputs else found[name]
        if not np.allclose(actual, wanted, rtol=_RTOL, atol=_RTOL * float(np.abs(wanted).max(initial=0)), equal_nan=True):
            raise ModelError(f"the self-scoring model's {name!r} differs from the scoring model's: please report it")
