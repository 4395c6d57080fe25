"""Makes the self-scoring form of a scoring model in memory: the session itself gives all features."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from gradscore.errors import ModelError
from gradscore.graph.assemble.backsteps import append_backsteps
from gradscore.graph.assemble.device_form import arrange_for_device
from gradscore.graph.assemble.feature_table import FeatureTable
from gradscore.graph.assemble.input_features import append_input_features
from gradscore.graph.differentiate.gradient import values_of
from gradscore.graph.nodes.emitter import Emitter
from gradscore.graph.nodes.probing import BATCH
from gradscore.graph.nodes.storing import fits_one_file
from gradscore.graph.normalize.dialect import infer_shapes
from gradscore.graph.statistics.append import append_statistics
from gradscore.model.layer_inputs import NAMES_OF
from gradscore.model.metadata import HEAD_FEATURES, SIGNAL_EXTRA, SIGNAL_FEATURES, SIGNAL_LABEL
from gradscore.model.model_file import read_metadata


def unit_form(path: str | os.PathLike[str], *, on_device: bool = False, extras: Sequence[str] = ()) -> bytes:
    """Return a scoring model that outputs logits, label, all features of the unit seed, and extra features.

    The output `SIGNAL_FEATURES` is float32 [B, 8·(layers + 1)]. The caller must still multiply the scaled features by
    the residual, in float64. Each extra feature is an output `SIGNAL_EXTRA`/name, float32 [B, columns], which the caller
    takes as it is. The metadata of the file are kept.

    Parameters
    ----------
    path
        The scoring model.
    on_device
        Arrange the statistics for the kernels of a GPU.
    extras
        Extra features, from `NAMES_OF`.

    Returns
    -------
    bytes
        The serialised model.

    Raises
    ------
    ModelError
        The file is not a scoring model, is too large to be handed to the runtime in memory, or cannot have an extra
        feature.
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
    emit = Emitter(graph, "features")
    tables = {SIGNAL_FEATURES: (exact, len(names))}
    for extra in extras:
        columns = NAMES_OF[extra](metadata)
        table = FeatureTable.of(append_input_features(graph, metadata, columns), emit)
        tables[f"{SIGNAL_EXTRA}/{extra}"] = table.take(columns), len(columns)
    values = values_of(graph)
    graph.outputs.clear()
    graph.outputs.extend([values[metadata.logits], values[SIGNAL_LABEL]])
    for name, (value, width) in tables.items():
        table_of = emit("Cast", value, to=ir.DataType.FLOAT)
        table_of.name, table_of.type = name, ir.TensorType(ir.DataType.FLOAT)
        table_of.shape = ir.Shape([BATCH, width])
        graph.outputs.append(table_of)
    if on_device:
        arrange_for_device(model)
    common_passes.RemoveUnusedNodesPass()(model)
    common_passes.TopologicalSortPass()(model)
    serialised: bytes = ir.to_proto(model).SerializeToString()
    return serialised
