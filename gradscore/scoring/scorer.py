"""`Scorer`: inputs -> batch -> signals -> statistics -> scores, for one batch or a stream."""

import logging
import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gradscore.detectors import DetectorReference
from gradscore.errors import InputError
from gradscore.files.digest import sha256_of_file
from gradscore.inputs.content import SLOW
from gradscore.inputs.entries import Listing, ids_of, paths_of
from gradscore.inputs.prefetch.decoders import Decoders
from gradscore.inputs.prefetch.found import Inputs, Part
from gradscore.inputs.prefetch.pipeline import ReadAhead
from gradscore.inputs.sources import Entry, Source
from gradscore.model.model_file import read_metadata
from gradscore.model.weights import require_weights
from gradscore.runtime.session import CPU_PROVIDER, SignalSession
from gradscore.scoring.backends import ScoringBackend, backend_named
from gradscore.scoring.computation import Computation
from gradscore.scoring.detector_columns import DETECTOR_COLUMNS, detector_columns
from gradscore.scoring.extra_feature import ExtraFeature, FromSession
from gradscore.scoring.extra_features import extras_named, possible_names
from gradscore.scoring.scores import ScoredBatch, Scores
from gradscore.scoring.serving import BatchedScorer
from gradscore.scoring.tensors import Batch, Tensors, tensors_of

_log = logging.getLogger(__name__)

FloatArray = NDArray[np.float64]
Count = Callable[[str, float], None]
COUNTERS = ("gradscore_inputs_total", "gradscore_batches_total", "gradscore_seconds_total")


class Scorer:
    """A loaded scoring model, which turns batches into scores. Create it with `Scorer.load`."""

    def __init__(self, computation: Computation, fingerprint: str, reference_sha256: str | None = None) -> None:
        self.metadata = computation.metadata
        self.fingerprint = fingerprint
        self.reference_sha256 = reference_sha256
        self.backend = computation.backend.name
        self._computation = computation
        self._count: Count = _uncounted

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        providers: Sequence[str] | None = None,
        backend: str = "auto",
        threads: int | None = None,
        features: Sequence[str | ExtraFeature] = (),
        reference: str | os.PathLike[str] | None = None,
    ) -> "Scorer":
        """Load a scoring model written by `prepare`.

        Parameters
        ----------
        path
            The scoring model.
        providers
            onnxruntime execution providers. A provider that is missing is an error. Default: CPU.
        backend
            A kernel back end or "graph", with which the session itself computes the statistics in single precision.
            "auto" means the fastest kernel back end on the CPU, and "graph" on other providers.
        threads
            Number of threads of the session, and of the kernels. Default: all usable cores.
        features
            Names of extra features, from `EXTRA_FEATURES` and `DETECTOR_COLUMNS`, or "recommended" for those that verdicts are
            best with, or extra features themselves.
        reference
            The file of what detectors learned from known inputs, from `gradscore reference`. Some detectors need it.

        Returns
        -------
        Scorer
            Close it, or use it in a `with` block.

        Raises
        ------
        ModelError
            The file is not a scoring model, its weights are missing, or the model cannot have an extra feature. Or the
            reference is no such file.
        RuntimeUnavailableError
            onnxruntime, a provider or the back end is missing or does not start.
        InputError
            An extra feature is unknown, the back end graph cannot compute it, or it needs a reference and has none.
        MismatchError
            The reference belongs to another model.
        """
        file = Path(path)
        metadata = read_metadata(file)
        back_end = backend_named(backend, providers)
        fingerprint = sha256_of_file(file)
        learned = None if reference is None else DetectorReference.load(reference)
        named = possible_names([one for one in features if isinstance(one, str)], metadata)
        extras = (
            *_from_session(extras_named([name for name in named if name not in DETECTOR_COLUMNS]), back_end),
            *detector_columns(
                [name for name in named if name in DETECTOR_COLUMNS], file, metadata, fingerprint, learned
            ),
            *(one for one in features if isinstance(one, ExtraFeature)),
        )
        _require_signals(extras, back_end)
        inside = [extra.name for extra in extras if isinstance(extra, FromSession)]
        model = back_end.model(file, (providers or [CPU_PROVIDER])[0], inside)
        session = SignalSession(model, providers=providers, threads=threads)
        require_weights(file, metadata)
        _log.info("loaded %s: back end %s on %s", file, back_end.name, ", ".join(session.providers))
        sha256 = None if reference is None else sha256_of_file(Path(reference))
        return cls(Computation(session, metadata, back_end, threads, extras), fingerprint, sha256)

    def count_with(self, count: Count) -> None:
        """Set a function for monitoring, which is called after each batch.

        It is called with each name of `COUNTERS` and its increase, from the thread that scores. It must not block. For
        prometheus_client, with one Counter per name:
        `scorer.count_with(lambda name, increase: counters[name].inc(increase))`.
        """
        self._count = count

    def batched(self, max_batch: int = 32, max_delay_ms: float = 2.0) -> BatchedScorer:
        """Return a `BatchedScorer`, which takes single inputs and scores them in batches. Close it before this scorer.

        Parameters
        ----------
        max_batch
            Largest number of inputs to score together.
        max_delay_ms
            Longest time that an input waits for others, in milliseconds.

        Raises
        ------
        InputError
            `max_batch` is less than 1, or `max_delay_ms` is negative.
        """
        return BatchedScorer(self._tensors, self._score_inputs, max_batch=max_batch, max_delay_ms=max_delay_ms)

    def close(self) -> None:
        """Stop the scorer's threads. It cannot score afterwards."""
        self._computation.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in the order of `Scores.features`."""
        return self._computation.feature_names

    @property
    def extra_features(self) -> tuple[str, ...]:
        """Names of the extra features that the scorer was loaded with."""
        return tuple(extra.name for extra in self._computation.extras)

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use."""
        return self._computation.providers

    def score(self, batch: Batch) -> Scores:
        """Score a batch of inputs, from any thread.

        uint8 pixels are preprocessed as the metadata says. Floats and token ids are taken as they are.

        Parameters
        ----------
        batch
            An array of NumPy, or of another library that supports DLPack, in main memory; a sequence of bytes, each an
            encoded image; or for a model with several inputs a mapping from their names to arrays.

        Returns
        -------
        Scores
            One row per sample.

        Raises
        ------
        InputError
            The array does not fit the model's input or lies on a device, or an image cannot be decoded.
        """
        return self._score_inputs(self._tensors(batch))

    def layer_gradients(
        self, batch: NDArray[Any] | Mapping[str, NDArray[Any]], layers: Sequence[str] | None = None
    ) -> dict[str, dict[str, FloatArray]]:
        """Return per-sample gradients: {layer: {parameter: float64 [B, *shape]}}.

        This takes 8 bytes of memory for each parameter of each sample.

        Parameters
        ----------
        batch
            As for `score`.
        layers
            Names of layers. Default: all layers.

        Raises
        ------
        InputError
            The array does not fit the model's input, the model has no such layer, or the back end is "graph".
        """
        known = {layer.name: layer for layer in self.metadata.layers}
        if missing := [name for name in layers or () if name not in known]:
            raise InputError(f"the model has no layer {missing[0]!r}: it has {', '.join(known)}")
        if not self._computation.backend.shows_signals:
            raise InputError(
                f"the back end {self.backend} keeps no gradients: load the scorer with a kernel back end, such as numba"
            )
        chosen = [known[name] for name in layers] if layers is not None else list(known.values())
        return self._computation.gradients(self._tensors(batch), chosen)

    def stream(self, source: Iterable[Entry], *, batch_size: int = 256) -> Generator[ScoredBatch, None, None]:
        """Score the entries of a source in order, and decode ahead in threads.

        An entry that cannot be read becomes a row with its error.

        Raises
        ------
        InputError
            `batch_size` is less than 1.
        """
        if batch_size < 1:
            raise InputError(f"batch size is {batch_size}: --batch-size must be at least 1")
        with self._reading(source, batch_size) as ahead, closing(ahead.batches(_entries(source))) as batches:
            for entries, parts in batches:
                yield self._scored(tuple(ids_of(entries)), Inputs(parts), ahead.spare_threads())

    def read_ahead(
        self, source: Iterable[Entry], *, batch_size: int = 256
    ) -> Generator[tuple[Sequence[Entry], Inputs], None, None]:
        """Read the entries of a source in order, in threads; yield batches of entries and their inputs or errors."""
        with self._reading(source, batch_size) as ahead, closing(ahead.batches(_entries(source))) as batches:
            for entries, parts in batches:
                yield entries, Inputs(parts)

    @contextmanager
    def _reading(self, source: Iterable[Entry], batch_size: int) -> Iterator[ReadAhead[Entry, Part]]:
        how, inputs = self.metadata.preprocessing, len(source) if isinstance(source, Sized) else None
        with Decoders(self.read, how, threads=self._computation.threads, inputs=inputs) as decoders:
            size, entries = self._input_bytes(), _entries(source)
            decoders.expect(paths_of(entries[:1]) if isinstance(entries, (Listing, list)) else None)
            yield ReadAhead(decoders.read, batch_size=batch_size, threads=self._computation.threads, size_of_one=size)

    def read(self, entry: Entry) -> NDArray[Any] | str:
        """Return an entry's input without the batch dimension, or a text that says what is wrong with it."""
        start = time.monotonic()
        try:
            return entry.read(self.metadata)
        except InputError as error:
            _log.warning("%s: %s", entry.id, error)
            return str(error)
        finally:
            if (seconds := time.monotonic() - start) > SLOW:
                _log.warning("%s took %.0f s to read", entry.id, seconds)

    def _input_bytes(self) -> int:
        tensor = self.metadata.inputs[0]
        return math.prod(extent or 1 for extent in tensor.shape[1:]) * np.dtype(tensor.dtype).itemsize

    def _scored(self, ids: tuple[str, ...], inputs: Inputs, threads: int) -> ScoredBatch:
        parts = [
            (rows, self._score_inputs(self._tensors(stacked), threads)) for rows, stacked in inputs.stacks()
        ]  # fmt: skip
        if len(parts) == 1 and len(parts[0][0]) == len(ids):
            return ScoredBatch(ids, parts[0][1], inputs.errors())
        labels = np.full(len(ids), -1, dtype=np.int64)
        features = np.full((len(ids), len(self.feature_names)), np.nan)
        for rows, scores in parts:
            labels[rows], features[rows] = scores.label, scores.features
        return ScoredBatch(ids, Scores(labels, features, self.feature_names), inputs.errors())

    def _tensors(self, batch: Batch) -> dict[str, NDArray[Any]]:
        return tensors_of(batch, self.metadata)

    def _score_inputs(self, inputs: Tensors, threads: int | None = None) -> Scores:
        start = time.perf_counter()
        scores = self._computation.scores(inputs, threads or self._computation.threads)
        for name, increase in zip(COUNTERS, (len(scores), 1, time.perf_counter() - start), strict=True):
            self._count(name, increase)
        return scores


def _entries(source: Iterable[Entry]) -> Iterable[Entry]:
    """Return the entries of a source; a listing among them makes no entry objects before they are needed."""
    return source.entries if isinstance(source, Source) else source


def _uncounted(_name: str, _increase: float) -> None:
    """Count nothing."""


def _from_session(extras: Sequence[ExtraFeature], backend: ScoringBackend) -> tuple[ExtraFeature, ...]:
    """Return the extra features; those of layers come from the session if it can compute them."""
    return tuple(
        FromSession(extra) if extra.reads_layers and extra.name in backend.computes else extra for extra in extras
    )


def _require_signals(extras: Sequence[ExtraFeature], backend: ScoringBackend) -> None:
    if not backend.shows_signals and (of_layers := [extra.name for extra in extras if extra.reads_layers]):
        raise InputError(
            f"{of_layers[0]} needs the inputs of layers, which the back end {backend.name} does not put out: leave it out of "
            "--features, or choose a kernel back end with --backend, such as numba"
        )
