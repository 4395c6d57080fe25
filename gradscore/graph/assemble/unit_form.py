"""A scoring model in its self-scoring form, in memory: all features of the unit seed come out of the session itself."""

import os
import sys
from pathlib import Path

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from gradscore.errors import ModelError
from gradscore.graph.assemble.backsteps import append_backsteps
from gradscore.graph.assemble.device_form import arrange_for_device
from gradscore.graph.differentiate.gradient import values_of
from gradscore.graph.nodes.emitter import Emitter
from gradscore.graph.nodes.probing import BATCH
from gradscore.graph.nodes.storing import fits_one_file
from gradscore.graph.normalize.dialect import infer_shapes
from gradscore.graph.statistics.append import append_statistics
from gradscore.model.metadata import HEAD_FEATURES, METADATA_KEY, SIGNAL_FEATURES, SIGNAL_LABEL, ModelMetadata


def unit_form(path: str | os.PathLike[str], *, on_device: bool = False) -> bytes:
    """Return a scoring model that puts out logits, label and, as `SIGNAL_FEATURES`, float32 [B, 8·(layers + 1)].

    The residual still has to multiply what it scales, outside, in float64. The file's metadata stay.

    Parameters
    ----------
    path
        The scoring model.
    on_device
        Arrange the statistics for the kernels of a GPU.

    Raises
    ------
    ModelError
        The file is not a scoring model, or too large for memory to hand to the runtime.
    UnsupportedOpError
        A layer's statistics cannot be put into the graph.
    """
    model = ir.load(Path(path))
    text = model.metadata_props.get(METADATA_KEY)
    if text is None:
        raise ModelError(
            f"{path} is an ONNX model but not a scoring model: run `gradscore prepare {path} -o scoring.onnx`"
        )
    metadata = ModelMetadata.from_json(text, where=str(path))
    if not fits_one_file(model):
        raise ModelError(f"{path} is larger than the back end graph can take, 2 GB: choose --backend native or numba")
    names = metadata.feature_names[: -len(HEAD_FEATURES)]
    graph = infer_shapes(model).graph
    append_backsteps(model, metadata.backsteps)
    exact = append_statistics(graph, metadata.layers, names, at_once=sys.maxsize)  # micro-batches bound the memory
    features = Emitter(graph, "features")("Cast", exact, to=ir.DataType.FLOAT)
    features.name, features.type = SIGNAL_FEATURES, ir.TensorType(ir.DataType.FLOAT)
    features.shape = ir.Shape([BATCH, len(names)])
    values = values_of(graph)
    graph.outputs.clear()
    graph.outputs.extend([values[metadata.logits], values[SIGNAL_LABEL], features])
    if on_device:
        arrange_for_device(model)
    common_passes.RemoveUnusedNodesPass()(model)
    common_passes.TopologicalSortPass()(model)
    serialised: bytes = ir.to_proto(model).SerializeToString()
    return serialised
