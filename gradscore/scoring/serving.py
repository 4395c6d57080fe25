"""Scoring for services that get single requests: requests that arrive together are scored together."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from gradscore.errors import GradscoreError, InputError

if TYPE_CHECKING:
    from gradscore.scoring.scores import Scores

_log = logging.getLogger(__name__)


@dataclass
class _Request:
    tensors: dict[str, NDArray[Any]]
    future: "Future[Scores]" = field(default_factory=Future)


class BatchedScorer:
    """Takes single inputs and returns their scores, from any number of threads; `Scorer.batched` makes it.

    Each request waits at most `max_delay_ms` for others, and is scored with up to `max_batch` − 1 of them. Inputs of
    different shapes go into different batches. `close` first scores what was submitted before.
    """

    def __init__(
        self,
        tensors: Callable[[Any], dict[str, NDArray[Any]]],
        score: "Callable[[dict[str, NDArray[Any]]], Scores]",
        *,
        max_batch: int,
        max_delay_ms: float,
    ) -> None:
        if max_batch < 1 or max_delay_ms < 0:
            raise InputError(f"max_batch is {max_batch} and max_delay_ms is {max_delay_ms}: pass at least 1 and 0")
        self._tensors, self._score = tensors, score
        self._max_batch, self._max_delay = max_batch, max_delay_ms / 1000
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="gradscore-batched", daemon=True)
        self._thread.start()

    def submit(self, sample: Any) -> "Future[Scores]":
        """Submit one input: as for `Scorer.score` but without the batch dimension; bytes are an encoded image.

        Returns
        -------
        Future
            Its result is a `Scores` of one row.

        Raises
        ------
        InputError
            The input does not fit the model. It joins no batch.
        GradscoreError
            The scorer is closed.
        """
        request = _Request(self._tensors(_one(sample)))
        with self._closing:
            if self._closed:
                raise GradscoreError("this batched scorer is closed: make another with `Scorer.batched`")
            self._requests.put(request)
        return request.future

    def score(self, sample: Any) -> "Scores":
        """Score one input and wait for its `Scores` of one row; raises the errors of `submit`."""
        return self.submit(sample).result()

    def close(self) -> None:
        """Score what was submitted before, then stop."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._requests.put(None)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        while (first := self._requests.get()) is not None:
            batch, last = self._gathered(first)
            self._answer([request for request in batch if request.future.set_running_or_notify_cancel()])
            if last:
                return

    def _gathered(self, first: _Request) -> tuple[list[_Request], bool]:
        """Wait for further requests, and tell whether the scorer closes after them."""
        batch, until = [first], time.monotonic() + self._max_delay
        while len(batch) < self._max_batch:
            try:
                request = self._requests.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                break
            if request is None:
                return batch, True
            batch.append(request)
        return batch, False

    def _answer(self, batch: Sequence[_Request]) -> None:
        groups: dict[tuple[Any, ...], list[_Request]] = {}
        for request in batch:
            shapes = tuple((name, array.shape, array.dtype) for name, array in request.tensors.items())
            groups.setdefault(shapes, []).append(request)
        for group in groups.values():
            try:
                names = group[0].tensors
                scores = self._score({name: np.concatenate([one.tensors[name] for one in group]) for name in names})
            except Exception as error:  # each caller must get the error, whatever it is, and the thread must go on
                _log.exception("a batch of %d inputs could not be scored", len(group))
                for request in group:
                    request.future.set_exception(error)
                continue
            for row, request in enumerate(group):
                request.future.set_result(scores.rows(slice(row, row + 1)))


def _one(sample: Any) -> Any:
    if isinstance(sample, bytes):
        return [sample]
    if isinstance(sample, dict):
        return {name: np.asarray(array)[None] for name, array in sample.items()}
    return sample[None] if hasattr(sample, "__dlpack__") else np.asarray(sample)[None]
