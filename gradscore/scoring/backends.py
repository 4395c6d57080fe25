"""Back ends of a scorer: who computes the statistics of layers, and what that leaves to read.

The kernels reduce the session's signals; the back end `graph` lets the session compute the statistics itself.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import gradscore_kernels as kernels
import numpy as np
from numpy.typing import NDArray

from gradscore.errors import RuntimeUnavailableError
from gradscore.model.metadata import ModelMetadata
from gradscore.runtime.device import DEVICES
from gradscore.runtime.session import CPU_PROVIDER
from gradscore.scoring.layer_statistics import GraphStatistics, LayerStatistics, Signals

FloatArray = NDArray[np.float64]

_FEWEST = 8  # samples that share a pass over the weights, where memory allows
_CACHE_BYTES, _MEMORY_BYTES = 5 << 19, 64 << 20
_GRAPH_BYTES, _DEVICE_BYTES = 64 << 20, 2 << 30
_COPIES = 4  # of the largest gradient, while the graph computes its moments


class Statistics(Protocol):
    """The eight statistics of every layer's gradient and of all together."""

    def of(self, signals: Signals, residual: FloatArray, *, threads: int | None) -> FloatArray:
        """Return [B, 8·(layers + 1)]."""


class ScoringBackend(Protocol):
    """One back end of a scorer.

    Attributes
    ----------
    name
        What `--backend` calls it.
    kernels
        The kernel back end for what every back end leaves to kernels, such as the features of the softmax.
    shows_signals
        The signals of layers reach the caller: raw gradients, and features of layers, need them.
    reads_device
        It takes signals where their provider left them, in device memory.
    """

    name: str
    kernels: str
    shows_signals: bool
    reads_device: bool

    def model(self, file: Path, provider: str) -> Path | bytes:
        """Return what the session loads for a scoring model on this provider."""

    def fitting(self, metadata: ModelMetadata, provider: str) -> int:
        """Return how many samples fit into the memory that a micro-batch may take."""

    def statistics(self, metadata: ModelMetadata) -> Statistics:
        """Return what turns the session's outputs into statistics."""


class KernelBackend:
    """Statistics by a back end of gradscore_kernels, from the signals of layers."""

    shows_signals = True

    def __init__(self, name: str) -> None:
        self.name = self.kernels = name
        self.reads_device = kernels.BACKENDS[name].reads_device

    def model(self, file: Path, provider: str) -> Path:  # noqa: ARG002 - the signals form suits every provider
        """Return the file as it stands."""
        return file

    def fitting(self, metadata: ModelMetadata, provider: str) -> int:
        """Return how many samples fit.

        On the CPU, signals that stay near the caches save more than weights that serve more samples; a few samples
        should share the weights all the same.
        """
        size = max(1, metadata.signal_bytes)
        if provider == CPU_PROVIDER:
            return max(_CACHE_BYTES // size, min(_FEWEST, _MEMORY_BYTES // size))
        return _DEVICE_BYTES // size

    def statistics(self, metadata: ModelMetadata) -> Statistics:
        """Return a program of kernels."""
        return LayerStatistics(metadata, self.name)


class GraphBackend:
    """Statistics by the session itself, in single precision, wherever its provider runs."""

    name = "graph"
    kernels = "auto"
    shows_signals = False
    reads_device = False

    def model(self, file: Path, provider: str) -> bytes:
        """Return the model in its self-scoring form, arranged for the provider."""
        from gradscore.graph.assemble.unit_form import unit_form  # noqa: PLC0415 - loads onnx; kernels do not need it

        return unit_form(file, on_device=provider in DEVICES)

    def fitting(self, metadata: ModelMetadata, provider: str) -> int:
        """Return how many samples fit while the graph computes with copies of the largest gradient."""
        largest = max((item.count for layer in metadata.layers for item in layer.parameters), default=0)
        size = metadata.signal_bytes + _COPIES * np.dtype(np.float32).itemsize * largest
        return (_GRAPH_BYTES if provider == CPU_PROVIDER else _DEVICE_BYTES) // max(1, size)

    def statistics(self, metadata: ModelMetadata) -> Statistics:  # noqa: ARG002 - the graph knows its layers
        """Return what reads the graph's own statistics."""
        return GraphStatistics()


GRAPH = GraphBackend()


def backend_names() -> tuple[str, ...]:
    """Names of the back ends that can run here."""
    return (*kernels.available_backends(), GRAPH.name)


def backend_named(name: str, providers: Sequence[str] | None) -> ScoringBackend:
    """Return the back end of this name.

    "auto" is the fastest kernels on the CPU, and the graph on other providers.

    Raises
    ------
    RuntimeUnavailableError
        The back end cannot run here.
    """
    if name == "auto":
        on_cpu = (providers or [CPU_PROVIDER])[0] == CPU_PROVIDER
        return KernelBackend(kernels.default_backend()) if on_cpu else GRAPH
    if name == GRAPH.name:
        return GRAPH
    if name not in kernels.available_backends():
        raise RuntimeUnavailableError(
            f"back end {name!r} is not there: choose {', '.join(backend_names())} or auto with --backend"
        )
    return KernelBackend(name)
