"""How a batch is cut: pieces small enough for the caches and memory, and as many as there are threads."""

import numpy as np

from gradscore.model.metadata import ModelMetadata
from gradscore.runtime.session import CPU_PROVIDER

GRAPH = "graph"
_LARGEST = 128
_FEWEST = 8  # samples that share a pass over the weights, where memory allows
_CACHE_BYTES, _MEMORY_BYTES = 5 << 19, 64 << 20
_GRAPH_BYTES, _DEVICE_BYTES = 64 << 20, 2 << 30
_COPIES = 4  # of the largest gradient, while its moments are computed in the graph


def micro_batch(metadata: ModelMetadata, backend: str, provider: str) -> int:
    """Return how many samples to run at once.

    Signals that stay near the caches between the session and the kernels save more than weights that serve more samples;
    a few samples should share the weights all the same.
    """
    if metadata.one_at_a_time:
        return 1
    size = max(1, _bytes_of_one(metadata, backend))
    if backend == GRAPH:
        fitting = (_GRAPH_BYTES if provider == CPU_PROVIDER else _DEVICE_BYTES) // size
    elif provider == CPU_PROVIDER:
        fitting = max(_CACHE_BYTES // size, min(_FEWEST, _MEMORY_BYTES // size))
    else:
        fitting = _DEVICE_BYTES // size
    most = max(1, min(_LARGEST, fitting))
    return most if provider == CPU_PROVIDER else 1 << (most.bit_length() - 1)  # batches are powers of two, too


def _bytes_of_one(metadata: ModelMetadata, backend: str) -> int:
    """Return about what one sample takes between the session and the kernels, or inside the graph."""
    if backend != GRAPH:
        return metadata.signal_bytes
    largest = max((item.count for layer in metadata.layers for item in layer.parameters), default=0)
    return metadata.signal_bytes + _COPIES * np.dtype(np.float32).itemsize * largest
