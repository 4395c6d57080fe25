"""scoring model + verdict -> one self-scoring model, which runs without gradscore."""

import gc
import hashlib
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from gradscore.detectors import DetectorReference
from gradscore.errors import InputError, ModelError
from gradscore.files.digest import sha256_of_file
from gradscore.files.writing import refuse_existing, replacing
from gradscore.fusing.detector_nodes import with_detectors
from gradscore.fusing.proof import check_fused
from gradscore.graph.assemble.absorbing import absorb_affine
from gradscore.graph.assemble.backsteps import append_backsteps
from gradscore.graph.assemble.device_form import AT_ONCE_ON_DEVICE, arrange_for_device
from gradscore.graph.assemble.feature_table import FeatureTable, add_output, append_features
from gradscore.graph.assemble.head_statistics import HEAD_NAMES, append_head
from gradscore.graph.differentiate.gradient import values_of
from gradscore.graph.nodes.probing import BATCH
from gradscore.graph.nodes.storing import write_model
from gradscore.graph.normalize.dialect import infer_shapes
from gradscore.graph.statistics.append import AT_ONCE
from gradscore.model.file_kinds import METADATA_KEY
from gradscore.model.layer_inputs import columns_by_feature
from gradscore.model.metadata import HEAD_FEATURES, SIGNAL_LABEL, ModelMetadata
from gradscore.model.model_file import read_metadata
from gradscore.model.selfscoring import WHY, SelfScoringMetadata
from gradscore.model.weights import require_weights
from gradscore.runtime.device import DEVICES
from gradscore.runtime.session import CPU_PROVIDER
from gradscore.scoring.detector_columns import DETECTOR_COLUMNS, DetectorColumn, detector_columns
from gradscore.tables.table import require_same_model, require_same_reference
from gradscore.verdict.inlining import inline_verdict, used_features
from gradscore.verdict.learning.verdict_nodes import OUTPUT, P_KNOWN, P_RIGHT, VERDICT_OUTPUTS
from gradscore.verdict.model import Verdict
from gradscore.version import __version__


def fuse(
    scoring: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    verdict: Verdict | str | os.PathLike[str] | None = None,
    features: Sequence[str] = (),
    reference: str | os.PathLike[str] | None = None,
    drop_outputs: bool = False,
    provider: str = CPU_PROVIDER,
    overwrite: bool = False,
) -> SelfScoringMetadata:
    """Join a scoring model and a verdict into one ONNX file of standard operators.

    The file has the classifier's own inputs and outputs. More outputs follow: `label` int64 [B]; with a verdict,
    `p_correct`, `p_right` and `p_known` float32 [B], `accept` bool [B], and `why` int64 [B] (see `WHY`); `entropy`,
    `max_softmax` and `residual` float32 [B]; and, if `features` are given, `features` float32 [B, F]. The file computes only
    what its outputs need.

    Parameters
    ----------
    scoring, out
        The scoring model, and the file to write.
    verdict
        A verdict that was fitted to features of this scoring model, or its file.
    features
        Patterns of the features to output: "fc.*" for those of the layer fc, "*" for all of layers and softmax. A pattern
        that none of these matches, such as "*.pooled.*" or "energy", chooses among the extra features.
    reference
        The file of what detectors learned, if the verdict reads some that need it.
    drop_outputs
        Leave out the outputs of the classifier that standard operators cannot compute. By default, they are an error.
    provider
        The execution provider that the statistics are arranged for: CPUExecutionProvider or CUDAExecutionProvider. The
        file runs on any provider, with the same results.
    overwrite
        Replace `out` if it exists.

    Returns
    -------
    SelfScoringMetadata
        What the self-scoring model says of itself, as written in its file.

    Raises
    ------
    ModelError
        `scoring` is not a scoring model, is too old, or takes one sample at a time. Or it lacks an output of the
        classifier, and `drop_outputs` is False. Or the written file fails its check, or would be larger than 2 GB.
    InputError
        No feature matches a pattern, the verdict reads a feature that the file cannot compute, or the provider is not
        one of these.
    MismatchError
        The verdict was fitted to another scoring model, or the reference belongs to another one.
    UnsupportedOpError
        A layer's statistics need a fixed size that the model does not have.
    OutputExistsError
        `out` exists and `overwrite` is False.
    """
    source, target = Path(scoring), Path(out)
    refuse_existing(target, overwrite=overwrite)
    on_device = _is_device(provider)
    known = read_metadata(source)
    require_weights(source, known)
    _check_fusible(known, source, drop_outputs=drop_outputs)
    judge = verdict if isinstance(verdict, Verdict) or verdict is None else Verdict.load(Path(verdict))
    used = used_features(judge) if judge is not None else ()
    fingerprint = sha256_of_file(source)
    if judge is not None:
        require_same_model(judge.model_fingerprint, fingerprint, "the verdict", str(source))
        _require_known(used, known)
    learned = None if reference is None else DetectorReference.load(reference)
    detectors = detector_columns(
        [name for name in used if name in DETECTOR_COLUMNS], source, known, fingerprint, learned
    )
    for column in detectors:
        column.columns(known)
    if judge is not None and reference is not None and judge.reference_sha256:
        given = sha256_of_file(Path(reference))
        require_same_reference(judge.reference_sha256, given, "the verdict", str(reference))
    chosen = _chosen(known, features)
    model = ir.load(source)
    metadata = SelfScoringMetadata(
        source_sha256=known.source_sha256,
        scoring_sha256=fingerprint,
        inputs=known.inputs,
        classes=known.classes,
        outputs=known.outputs,
        added=_join(model, known, judge, chosen, used, detectors, on_device=on_device),
        class_names=known.class_names,
        preprocessing=known.preprocessing,
        feature_names=chosen,
        gradscore_version=__version__,
        **_judged_by(judge),
    )
    with replacing(target, overwrite=overwrite) as part:
        model.metadata_props.clear()
        model.metadata_props[METADATA_KEY] = metadata.to_json()
        write_model(model, part)
        del model
        gc.collect()
        check_fused(part, source, metadata, judge, reference)
    return metadata


def _is_device(provider: str) -> bool:
    """Tell whether to arrange the statistics for a device."""
    if provider not in (CPU_PROVIDER, *DEVICES):
        raise InputError(
            f"statistics cannot be arranged for {provider!r}: leave out --provider, for a file that runs on any, or choose "
            f"{' or '.join((CPU_PROVIDER, *DEVICES))}"
        )
    return provider in DEVICES


def _check_fusible(known: ModelMetadata, path: Path, *, drop_outputs: bool) -> None:
    if not known.outputs and not known.dropped_outputs:
        raise ModelError(
            f"{path} was prepared by an older gradscore, without the classifier's outputs: run `gradscore prepare` again"
        )
    if known.dropped_outputs and not drop_outputs:
        raise ModelError(
            f"output {known.dropped_outputs[0]!r} of the classifier is not in the scoring model, since it needs a custom "
            "operator or a fixed batch size: leave it out with --drop-outputs"
        )
    summed = [layer.name for layer in known.layers if any(item.kernel == "whole" for item in layer.reductions)]
    if summed:
        raise ModelError(
            f"the gradient of layer {summed[0]!r} can only be computed one sample at a time, not for a batch: leave such "
            "parameters out with `gradscore prepare --allow-uncovered`"
        )


def _require_known(used: Sequence[str], known: ModelMetadata) -> None:
    if extra := [name for name in used if name not in {*known.feature_names, *_extra_names(known), *DETECTOR_COLUMNS}]:
        raise InputError(
            f"the verdict reads {extra[0]!r}, which a self-scoring model does not compute: fit one without it "
            "(`gradscore fit --features` chooses by pattern)"
        )


def _chosen(known: ModelMetadata, patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the features that match a pattern, in table order."""
    chosen = set[str]()
    for pattern in patterns:
        own, extra = (
            {name for name in names if fnmatchcase(name, pattern)}
            for names in (known.feature_names, _extra_names(known))
        )
        if not own and not extra:
            some = ", ".join(known.feature_names[:5])
            raise InputError(f"no feature matches {pattern!r} (--features): the model has {some}, …")
        chosen |= own or extra
    return tuple(name for name in (*known.feature_names, *_extra_names(known)) if name in chosen)


def _extra_names(known: ModelMetadata) -> tuple[str, ...]:
    """Return the columns of extra features that the graph can compute."""
    of_logits = [name for name in HEAD_NAMES if name not in HEAD_FEATURES]
    return (*of_logits, *(name for names in columns_by_feature(known).values() for name in names))


def _join(
    model: ir.Model, known: ModelMetadata, verdict: Verdict | None, chosen: tuple[str, ...], used: tuple[str, ...],
    detectors: Sequence[DetectorColumn], *, on_device: bool,
) -> dict[str, str]:  # fmt: skip
    """Append statistics and verdict, remove unused nodes, and return the name of each added output."""
    graph = infer_shapes(model).graph
    append_backsteps(model, known.backsteps)
    values, own = values_of(graph), {value.name: value for value in graph.outputs}
    label = values[SIGNAL_LABEL]
    head = append_head(graph, values[known.logits], label, known.classes)
    at_once = AT_ONCE_ON_DEVICE if on_device else AT_ONCE
    own_features = [name for name in (*chosen, *used) if name not in DETECTOR_COLUMNS]
    table = append_features(graph, known, head, own_features, at_once=at_once)
    table = with_detectors(table, graph, values, known, detectors, label)
    graph.outputs.clear()
    graph.outputs.extend(own[name] for name in known.outputs)
    added = {"label": add_output(graph, label, "label", ir.DataType.INT64, [BATCH])}
    if verdict is not None:
        added |= _add_answers(graph, table, inline_verdict(graph, verdict, table.take(used)), verdict.threshold)
    for name in HEAD_FEATURES:
        flat = table.emit("Squeeze", getattr(head, name).value, table.emit.integers(1))
        added[name] = _add_float(graph, table, flat, name, [BATCH])
    if chosen:
        added["features"] = _add_float(graph, table, table.take(chosen), "features", [BATCH, len(chosen)])
    common_passes.RemoveUnusedNodesPass()(model)
    absorb_affine(graph)
    if on_device:
        arrange_for_device(model)
    common_passes.RemoveUnusedNodesPass()(model)
    common_passes.TopologicalSortPass()(model)
    return added


def _add_answers(
    graph: ir.Graph, table: FeatureTable, answers: dict[str, ir.Value], threshold: float
) -> dict[str, str]:  # fmt: skip
    """Make outputs of a verdict's probabilities, of the decision, and of what a rejected input looks like."""
    emit = table.emit
    accept = emit("GreaterOrEqual", answers[OUTPUT], emit.constant(threshold, np.float64))
    told = [name for name in VERDICT_OUTPUTS if name in answers]  # a verdict of schema version 1 has P(correct) alone
    added = {name: _add_float(graph, table, answers[name], name, [BATCH]) for name in told}
    added["accept"] = add_output(graph, accept, "accept", ir.DataType.BOOL, [BATCH])
    if P_KNOWN in answers:
        accepted, wrong, unknown, unjudged = (emit.integers(code) for code in WHY)
        looks = emit("Where", emit("Less", answers[P_KNOWN], answers[P_RIGHT]), unknown, wrong)
        judged = emit("Where", emit("IsNaN", answers[OUTPUT]), unjudged, looks)
        why = emit("Where", accept, accepted, judged)
        added["why"] = add_output(graph, why, "why", ir.DataType.INT64, [BATCH])
    return added


def _judged_by(verdict: Verdict | None) -> dict[str, Any]:
    """Return the fields of the metadata that describe a verdict."""
    if verdict is None:
        return {}
    return {
        "used_features": used_features(verdict),
        "threshold": verdict.threshold,
        "verdict": {"method": verdict.method, "sha256": _sha256(verdict)},
    }


def _sha256(verdict: Verdict) -> str:
    """Return the SHA-256 of the verdict's file."""
    return hashlib.sha256(verdict.proto.SerializeToString(deterministic=True)).hexdigest()


def _add_float(graph: ir.Graph, table: FeatureTable, value: ir.Value, name: str, shape: Sequence[str | int]) -> str:
    return add_output(graph, table.emit("Cast", value, to=ir.DataType.FLOAT), name, ir.DataType.FLOAT, shape)
