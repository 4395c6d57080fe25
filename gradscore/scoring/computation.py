"""A batch -> labels and features: cuts it into micro-batches and runs several at the same time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import gradscore_kernels as kernels
import numpy as np
from numpy.typing import NDArray

from gradscore.inputs.images import numbers
from gradscore.model.layer_table import Layer
from gradscore.model.metadata import SIGNAL_LABEL, ModelMetadata
from gradscore.runtime.device import DEVICES
from gradscore.runtime.session import CPU_PROVIDER, SignalSession
from gradscore.scoring.backends import ScoringBackend
from gradscore.scoring.extra_feature import ExtraFeature, Pass
from gradscore.scoring.layer_statistics import passed_back
from gradscore.scoring.micro_batch import micro_batch
from gradscore.scoring.raw_gradients import layer_gradients
from gradscore.scoring.scores import Scores
from gradscore.scoring.tensors import Tensors, samples_of

_AT_ONCE = 2  # micro-batches on a device: it computes one while another is copied

FloatArray = NDArray[np.float64]


class Computation:
    """Computes scores with a session, a back end for the statistics, extra features and threads."""

    def __init__(
        self,
        session: SignalSession,
        metadata: ModelMetadata,
        backend: ScoringBackend,
        threads: int | None,
        extras: tuple[ExtraFeature, ...],
    ) -> None:
        session.leave_out(metadata.unread_outputs)
        session.fetch_once(metadata.constants)
        self.metadata = metadata
        self.backend = backend
        self.extras = extras
        self.providers = session.providers
        self.threads = threads or kernels.usable_cores()
        self.feature_names = (*metadata.feature_names, *(name for extra in extras for name in extra.columns(metadata)))
        self._session = session
        self._workers = ThreadPoolExecutor(self.threads, thread_name_prefix="gradscore-score")
        self._on_cpu = session.providers[0] == CPU_PROVIDER
        self._step = micro_batch(metadata, backend, session.providers[0])
        self._computed = 0  # rows of a micro-batch on a device, so far
        self._statistics = backend.statistics(metadata)

    def close(self) -> None:
        """Stop the threads."""
        self._workers.shutdown()

    def scores(self, inputs: Tensors, threads: int) -> Scores:
        """Return labels [B] and features [B, F] of a batch, computed in at most `threads` threads."""
        samples = samples_of(inputs)
        scores = Scores(np.empty(samples, np.int64), np.empty((samples, len(self.feature_names))), self.feature_names)
        pieces = self._pieces(samples)
        # A single micro-batch may use all cores; of several, each runs its kernels on one core.
        fill = partial(self._fill, inputs, scores, threads=threads if len(pieces) == 1 else 1)
        if len(pieces) == 1:
            fill(pieces[0])
        else:
            self._side_by_side(fill, pieces, threads)
        return scores

    def gradients(self, inputs: Tensors, layers: Sequence[Layer]) -> dict[str, dict[str, FloatArray]]:
        """Return per-sample gradients: {layer: {parameter: float64 [B, *shape]}}."""
        parts = []
        for piece in self._pieces(samples_of(inputs)):
            signals = self._session.run(self._rows(inputs, piece))
            signals = passed_back(self.metadata.backsteps, signals, backend=self.backend.kernels, threads=self.threads)
            logits, labels = signals[self.metadata.logits], signals[SIGNAL_LABEL]
            residual = kernels.softmax_features(logits, labels, backend=self.backend.kernels)[:, 2]
            parts.append({layer.name: layer_gradients(layer, signals, residual) for layer in layers})
        return {
            layer.name: {
                item.name: np.concatenate([part[layer.name][item.name] for part in parts])
                if parts else np.empty((0, *item.shape))
                for item in layer.parameters
            }
            for layer in layers
        }  # fmt: skip

    def _pieces(self, samples: int) -> list[slice]:
        """Cut a batch into micro-batches; on the CPU of equal size, and equally many for each thread."""
        step = self._step
        if self._on_cpu:
            count = -(-samples // (step * self.threads)) * self.threads
            step = max(1, -(-samples // max(1, count)))
        return [slice(start, min(start + step, samples)) for start in range(0, samples, step)]

    def _side_by_side(self, fill: Callable[[slice], None], pieces: Sequence[slice], threads: int) -> None:
        """Fill all pieces in up to `threads` threads, this one included."""
        remaining = iter(pieces)

        def some() -> None:
            for piece in remaining:
                fill(piece)

        most = threads if self._on_cpu else _AT_ONCE
        others = [self._workers.submit(some) for _ in range(min(threads, most, len(pieces)) - 1)]
        try:
            some()
        finally:
            errors = [other.exception() for other in others if not other.cancel()]
        for error in filter(None, errors):
            raise error

    def _fill(self, inputs: Tensors, scores: Scores, piece: slice, *, threads: int) -> None:
        """Score a micro-batch into its rows."""
        rows = self._rows(inputs, piece)
        samples = piece.stop - piece.start
        labels, parts = self._micro_batch(rows if self._on_cpu else self._filled_up(rows, samples), threads=threads)
        scores.label[piece] = labels[:samples]
        np.concatenate([part[:samples] for part in parts], axis=1, out=scores.features[piece])

    def _filled_up(self, rows: Tensors, samples: int) -> dict[str, NDArray[Any]]:
        """Repeat the last row until there are as many rows as in the micro-batch before.

        cuDNN plans every convolution again when the number of rows changes. That takes longer than to compute some rows
        that nobody needs. The number grows by doubling, up to the size of a micro-batch.
        """
        count = max(self._computed, min(self._step, 1 << (samples - 1).bit_length()))
        self._computed = count  # not locked: if another thread writes a smaller number, it only has to grow again
        return {name: np.concatenate([array, array[-1:].repeat(count - samples, 0)]) for name, array in rows.items()}

    def _rows(self, inputs: Tensors, piece: slice) -> dict[str, NDArray[Any]]:
        """Return a micro-batch as the session takes it, normalised in the thread that scores it."""
        how = self.metadata.preprocessing
        return {item.name: numbers(inputs[item.name][piece], how, item.dtype) for item in self.metadata.inputs}

    def _micro_batch(self, inputs: Tensors, *, threads: int) -> tuple[NDArray[np.int64], list[FloatArray]]:
        """Return the labels, and the features in column order."""
        signals = self._signals(inputs, alone=threads > 1)
        labels = signals[SIGNAL_LABEL]
        head = kernels.softmax_features(signals[self.metadata.logits], labels, backend=self.backend.kernels)
        layers = self._statistics.of(signals, np.ascontiguousarray(head[:, 2]), threads=threads)
        batch = Pass(self.metadata, signals, labels, self.backend.kernels, threads)
        return labels, [layers, head, *(extra.compute(batch) for extra in self.extras)]

    def _signals(self, inputs: Tensors, *, alone: bool) -> dict[str, Any]:
        """Run the session; signals that only kernels read stay on the device if the kernels can read them there."""
        device = DEVICES.get(self.providers[0])
        read_here = self.metadata.one_at_a_time or any(extra.reads_layers for extra in self.extras)
        if device is None or not self.backend.reads_device or read_here:
            return self._session.run_alone(inputs) if alone else self._session.run(inputs)
        return self._session.run_on_device(inputs, device, fetched={SIGNAL_LABEL, self.metadata.logits})
