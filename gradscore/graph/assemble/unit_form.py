"""Makes the self-scoring form of a scoring model in memory: the session itself gives all features."""

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
from gradscore.model.metadata import HEAD_FEATURES, SIGNAL_FEATURES, SIGNAL_LABEL
from gradscore.model.model_file import read_metadata


def unit_form(path: str | os.PathLike[str], *, on_device: bool = False) -> bytes:
    """Return a scoring model that outputs logits, label and all features of the unit seed.

    The output `SIGNAL_FEATURES` is float32 [B, 8·(layers + 1)]. The caller must still multiply the scaled features by
    the residual, in float64. The metadata of the file are kept.

    Parameters
    ----------
    path
        The scoring model.
    on_device
        Arrange the statistics for the kernels of a GPU.

    Returns
    -------
    bytes
        The serialised model.

    Raises
    ------
    ModelError
        The file is not a scoring model, or is too large to be handed to the runtime in memory.
    UnsupportedOpError
        The graph cannot compute a layer's statistics.
    """
    metadata = read_metadata(path)
    model = ir.load(Path(path))
    if not fits_one_file(model):
        raise ModelError(
            f"{path} is larger than 2 GB, the limit of the back end graph: choose --backend native or --backend numba"
        )
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
