"""The weights of the dense layer that makes the logits, read from a scoring model's file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradscore.detectors import LastLayer
from gradscore.errors import ModelError
from gradscore.model.layer_inputs import penultimate_of
from gradscore.model.metadata import ModelMetadata

if TYPE_CHECKING:
    import onnx_ir as ir


def read_last_layer(path: Path, metadata: ModelMetadata, feature: str) -> LastLayer:
    """Return weight [q, D] and bias [q] of the dense layer that makes the logits, in double precision.

    Parameters
    ----------
    path
        The scoring model. Large weights are read from the file beside it.
    metadata
        What the model says of itself.
    feature
        The feature that needs the weights, for errors.

    Raises
    ------
    ModelError
        No single dense layer makes the logits, or its weight is not stored as it is.
    """
    import onnx_ir as ir  # noqa: PLC0415 - only for detectors that read weights

    layer, reduction = penultimate_of(metadata, feature)
    graph = ir.load(path).graph
    arrays = {one.name: _values(graph, one.name) for one in layer.parameters}
    weights = {name: one for name, one in arrays.items() if one is not None and one.ndim == 2 and min(one.shape) > 1}
    if len(weights) != 1:
        raise ModelError(
            f"{feature} needs the weight of {layer.name}, which {path} does not hold as one matrix: leave {feature} out of "
            "--features"
        )
    (name, weight), outputs_first = weights.popitem(), (reduction.attributes or {}).get("outputs_first")
    weight = _factor(graph, name, "alpha") * (weight if outputs_first else weight.T)
    return LastLayer(np.ascontiguousarray(weight), _bias(graph, metadata))


def _bias(graph: "ir.Graph", metadata: ModelMetadata) -> Any:
    """Return the sum of all vectors that are added to make the logits: their gradient is the seed, too."""
    total = np.zeros(metadata.classes)
    for layer in metadata.layers:
        if any(item.delta == metadata.seed and item.activation is None for item in layer.reductions):
            found = {one.name: _values(graph, one.name) for one in layer.parameters}
            added = {name: one for name, one in found.items() if one is not None and one.size == metadata.classes}
            total += sum(_factor(graph, name, "beta") * one.reshape(-1) for name, one in added.items())
    return total


def _values(graph: "ir.Graph", name: str) -> Any:
    """Return an initializer as float64, or None if there is none of this name."""
    value = graph.initializers.get(name)
    return None if value is None or value.const_value is None else value.const_value.numpy().astype(np.float64)


def _factor(graph: "ir.Graph", name: str, attribute: str) -> float:
    """Return what a Gemm multiplies its weight (alpha) or bias (beta) with, or 1."""
    gemms = (node for node, _ in graph.initializers[name].uses() if node.op_type == "Gemm")
    return next((node.attributes.get_float(attribute, 1.0) for node in gemms), 1.0)
