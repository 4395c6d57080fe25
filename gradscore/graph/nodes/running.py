"""Runs a graph under construction in the runtime, its weights handed over where they lie instead of copied."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gradscore.runtime.session import open_session

_LARGEST_CONSTANT = 64  # small ones stay in the graph: they say shapes and axes


def run_graph(
    model: ir.Model, outputs: Sequence[str], batches: Sequence[Mapping[str, NDArray[Any]]]
) -> list[list[NDArray[Any]]]:
    """Return the named values of a model for each batch of inputs."""
    clone = model.clone()
    graph = clone.graph
    computed = {str(value.name): value for node in graph for value in node.outputs}
    graph.outputs.clear()
    graph.outputs.extend(computed[name] for name in outputs)
    for value in graph.outputs:
        value.shape = None
    weights = detach_weights(graph)
    session = open_session(ir.to_proto(clone).SerializeToString())
    return [session.run(list(outputs), {**weights, **batch}) for batch in batches]


def detach_weights(graph: ir.Graph, largest: int = _LARGEST_CONSTANT) -> dict[str, NDArray[Any]]:
    """Turn a graph's larger floating-point initializers into inputs and return their arrays by name."""
    arrays = {}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or value.dtype is None or not value.dtype.is_floating_point() or tensor.size <= largest:
            continue
        arrays[name] = np.ascontiguousarray(tensor.numpy())
        del graph.initializers[name]
        value.const_value = None
        value.shape = value.shape if value.shape is not None else ir.Shape(arrays[name].shape)
        graph.inputs.append(value)
    return arrays
