"""Back ends of a scorer, which compute the statistics of layers.

Kernel back ends reduce the session's signals. The back end `graph` lets the session compute the statistics itself.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import gradscore_kernels as kernels
import numpy as np
from numpy.typing import NDArray

from gradscore.errors import RuntimeUnavailableError
from gradscore.model.layer_inputs import NAMES_OF
from gradscore.model.metadata import ModelMetadata
from gradscore.runtime.device import DEVICES
from gradscore.runtime.session import CPU_PROVIDER
from gradscore.scoring.layer_statistics import GraphStatistics, LayerStatistics, Signals

FloatArray = NDArray[np.float64]

_FEWEST = 8  # samples that should share one pass over the weights, if memory allows
_CACHE_BYTES, _MEMORY_BYTES = 5 << 19, 64 << 20
_GRAPH_BYTES, _DEVICE_BYTES = 64 << 20, 2 << 30
_COPIES = 4  # copies of the largest gradient that the graph holds while it computes moments


class Statistics(Protocol):
    """Computes the eight statistics of every layer's gradient, and of all layers together."""

    def of(self, signals: Signals, residual: FloatArray, *, threads: int | None) -> FloatArray:
        """Return [B, 8·(layers + 1)]."""


class ScoringBackend(Protocol):
    """One back end of a scorer.

    Attributes
    ----------
    name
        Its name in `--backend`.
    kernels
        The kernel back end for the work that always needs kernels, such as the features of the softmax.
    shows_signals
        Whether the signals of layers come out of the session. Raw gradients need them, and so do features of layers that
        are not among `computes`.
    computes
        Extra features that the session can compute itself.
    reads_device
        Whether it takes signals in device memory, where their provider left them.
    """

    name: str
    kernels: str
    shows_signals: bool
    computes: frozenset[str]
    reads_device: bool

    def model(self, file: Path, provider: str, extras: Sequence[str]) -> Path | bytes:
        """Return the model that the session loads on this provider, with these of the extra features `computes`."""

    def fitting(self, metadata: ModelMetadata, provider: str) -> int:
        """Return how many samples fit into the memory that a micro-batch may take."""

    def statistics(self, metadata: ModelMetadata) -> Statistics:
        """Return the object that turns the session's outputs into statistics."""


class KernelBackend:
    """Statistics from the signals of layers, computed by a back end of gradscore_kernels."""

    shows_signals = True
    computes: frozenset[str] = frozenset()

    def __init__(self, name: str) -> None:
        self.name = self.kernels = name
        self.reads_device = kernels.BACKENDS[name].reads_device

    def model(self, file: Path, provider: str, extras: Sequence[str]) -> Path:  # noqa: ARG002 - the same suits all
        """Return the file itself."""
        return file

    def fitting(self, metadata: ModelMetadata, provider: str) -> int:
        """Return how many samples fit into the memory that a micro-batch may take.

        On the CPU, keeping signals in the caches saves more time than sharing one pass over the weights among more samples.
        But a few samples should share a pass even if their signals leave the caches.
        """
        size = max(1, metadata.signal_bytes)
        if provider == CPU_PROVIDER:
            return max(_CACHE_BYTES // size, min(_FEWEST, _MEMORY_BYTES // size))
        return _DEVICE_BYTES // size

    def statistics(self, metadata: ModelMetadata) -> Statistics:
        """Return a program of kernels."""
        return LayerStatistics(metadata, self.name)


class GraphBackend:
    """Statistics that the session computes itself, in single precision, on its own provider."""

    name = "graph"
    kernels = "auto"
    shows_signals = False
    computes = frozenset(NAMES_OF)
    reads_device = False

    def model(self, file: Path, provider: str, extras: Sequence[str]) -> bytes:
        """Return the model in its self-scoring form, arranged for the provider, with these extra features."""
        from gradscore.graph.assemble.unit_form import unit_form  # noqa: PLC0415 - it loads onnx, which kernels do not need

        return unit_form(file, on_device=provider in DEVICES, extras=extras)

    def fitting(self, metadata: ModelMetadata, provider: str) -> int:
        """Return how many samples fit, with the copies of the largest gradient that the graph makes."""
        largest = max((item.count for layer in metadata.layers for item in layer.parameters), default=0)
        size = metadata.signal_bytes + _COPIES * np.dtype(np.float32).itemsize * largest
        return (_GRAPH_BYTES if provider == CPU_PROVIDER else _DEVICE_BYTES) // max(1, size)

    def statistics(self, metadata: ModelMetadata) -> Statistics:  # noqa: ARG002 - the graph knows its layers
        """Return the object that reads the graph's own statistics."""
        return GraphStatistics()


GRAPH = GraphBackend()


def backend_names() -> tuple[str, ...]:
    """Return the names of the back ends that can run here."""
    return (*kernels.available_backends(), GRAPH.name)


def backend_named(name: str, providers: Sequence[str] | None) -> ScoringBackend:
    """Return the back end of this name.

    "auto" means the fastest kernel back end on the CPU, and `graph` on other providers.

    Raises
    ------
    RuntimeUnavailableError
        No back end of this name can run here.
    """
    if name == "auto":
        on_cpu = (providers or [CPU_PROVIDER])[0] == CPU_PROVIDER
        return KernelBackend(kernels.default_backend()) if on_cpu else GRAPH
    if name == GRAPH.name:
        return GRAPH
    if name not in kernels.available_backends():
        raise RuntimeUnavailableError(
            f"back end {name!r} cannot run here: choose {', '.join(backend_names())} or auto with --backend"
        )
    return KernelBackend(name)
