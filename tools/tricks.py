"""The package's speed tricks, and for each the way with it and a way without it, which must find the same.

A trick is off by the smallest change that leaves it out: kernels planned, or a model prepared or fused, without it; or a way
around it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gradscore import Scorer, fuse, open_source, prepare
from gradscore.bench.workloads import COMPARED, Workload
from gradscore.runtime.session import CPU_PROVIDER, load_onnxruntime

IMAGES, REQUESTS, CLIENTS, FUSED_BATCH, STREAM_BATCH = 4096, 256, 16, 32, 256
Found = Callable[[], NDArray[np.floating]]
Off = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Ways:
    """Features found with a trick and without it, of so many inputs."""

    on: Found
    off: Found
    inputs: int


@dataclass(frozen=True)
class Trick:
    """Code that is there for speed: its files, the models where it can matter, and what tries it on one."""

    title: str
    files: tuple[str, ...]
    models: tuple[str, ...]
    ways: Callable[[Workload], Ways]


def _scorer(workload: Workload, path: Path | None = None) -> Scorer:
    """Load a scorer that has planned its kernels: it does so at the first batch."""
    scorer = Scorer.load(path or workload.scoring, threads=workload.threads)
    scorer.score(workload.batch)
    return scorer


def _scoring(workload: Workload, on: Scorer, off: Scorer) -> Ways:
    batch = workload.batch
    return Ways(lambda: on.score(batch).features, lambda: off.score(batch).features, len(batch))


def _without(stand_ins: Mapping[str, object]) -> Off:
    """Return what puts stand-ins in the place of names of this package."""

    @contextmanager
    def off() -> Iterator[None]:
        with ExitStack() as stack:
            for name, stand_in in stand_ins.items():
                stack.enter_context(patch(f"gradscore.{name}", stand_in))
            yield

    return off


def _unplanned(trick: str, workload: Workload) -> Ways:
    """Plan native kernels without a trick."""
    native = import_module("gradscore_kernels._native")
    native.allow_trick(trick, False)
    try:
        off = _scorer(workload)
    finally:
        native.allow_trick(trick, True)
    return _scoring(workload, _scorer(workload), off)


def _unprepared(off: Off, workload: Workload) -> Ways:
    """Prepare the scoring model without a trick."""
    path = workload.folder / "without.onnx"
    with off():
        prepare(workload.onnx, path, overwrite=True)
    return _scoring(workload, _scorer(workload), _scorer(workload, path))


def _unfused(off: Off, workload: Workload) -> Ways:
    """Write the self-scoring model of all features without a trick."""

    def found(name: str) -> Found:
        path = workload.folder / name
        fuse(workload.scoring, path, features=("*",), overwrite=True)
        options = load_onnxruntime().SessionOptions()
        options.intra_op_num_threads = workload.threads
        session = load_onnxruntime().InferenceSession(path, options, providers=[CPU_PROVIDER])
        feed = {session.get_inputs()[0].name: workload.batch[:FUSED_BATCH]}
        return lambda: session.run(["features"], feed)[0]

    on = found("fused.onnx")
    with off():
        return Ways(on, found("fused-without.onnx"), FUSED_BATCH)


def _in_one_piece(workload: Workload) -> Ways:
    on, off = _scorer(workload), _scorer(workload)
    off._computation._pieces = lambda samples: [slice(0, samples)]  # type: ignore[method-assign]
    return _scoring(workload, on, off)


def _one_by_one(workload: Workload) -> Ways:
    on, off = _scorer(workload), _scorer(workload)
    off._computation._statistics._program._compile = None  # type: ignore[union-attr]  # kernels compute the statistics
    return _scoring(workload, on, off)


def _decoded_here(scorer: Scorer, files: Sequence[Path]) -> NDArray[np.floating]:
    with patch("gradscore.inputs.prefetch.decoders.can_start", return_value=False):
        return _streamed(scorer, files)


def _read_in_turn(scorer: Scorer, files: Sequence[Path]) -> NDArray[np.floating]:
    entries = open_source(files).entries
    batches = (entries[start : start + STREAM_BATCH] for start in range(0, len(entries), STREAM_BATCH))
    return np.concatenate([scorer.score(np.stack([scorer.read(one) for one in batch])).features for batch in batches])


def _streamed(scorer: Scorer, files: Sequence[Path]) -> NDArray[np.floating]:
    stream = scorer.stream(open_source(files), batch_size=STREAM_BATCH)
    return np.concatenate([batch.scores.features for batch in stream])


def _streaming(way: Callable[[Scorer, Sequence[Path]], NDArray[np.floating]], workload: Workload) -> Ways:
    """Score small image files as a stream, and in another way."""
    channels, *size = workload.classifier.shape
    rows = np.random.default_rng(0).integers(0, 64, (IMAGES, *size, channels), dtype=np.uint8)
    files = [workload.folder / f"{index:05d}.png" for index in range(IMAGES)]
    for file, row in zip(files, rows, strict=True):
        Image.fromarray(row.squeeze()).save(file)
    scorer = _scorer(workload)
    return Ways(lambda: _streamed(scorer, files), lambda: way(scorer, files), IMAGES)


def _requests(workload: Workload) -> Ways:
    """Answer many clients that send one input each."""
    scorer, samples = _scorer(workload), np.resize(workload.batch, (REQUESTS, *workload.classifier.shape))

    def answered(score: Callable[[NDArray[np.float32]], NDArray[np.floating]]) -> NDArray[np.floating]:
        with ThreadPoolExecutor(CLIENTS) as clients:
            return np.concatenate(list(clients.map(score, samples)))

    def together() -> NDArray[np.floating]:
        with scorer.batched() as front:
            return answered(lambda sample: front.score(sample).features)

    return Ways(together, lambda: answered(lambda sample: scorer.score(sample[None]).features), REQUESTS)


PICTURES, POOLED = ("paper-cnn", "resnet18"), ("paper-cnn",)
_PREFETCH, _GRAPH = "gradscore/inputs/prefetch", "gradscore/graph"
_UNPOOLING = (f"{_GRAPH}/lower/unpooling.py", f"{_GRAPH}/assemble/backsteps.py")
_SCATTERED = ("kernels/native/scattered.hpp",)
AT_FULL_SIZE = _without({"graph.assemble.scoring_graph.keep_pooled": lambda *_: ({}, ())})
NO_BACKSTEPS = _without({"graph.lower.unpooling._Kept._pass_back": lambda *_: None})
INDICES = _without(
    {f"graph.{user}.is_of_pairs": lambda *_: False for user in ("assemble.backsteps", "statistics.convolutions")}
)
ALONE = _without({
    "graph.statistics.append._evened": lambda asked, _: asked,
    "graph.statistics.append._joined": lambda members, gradients, _: (members, gradients),
})  # fmt: skip
ALL_AT_ONCE = _without({"fusing.fusion.AT_ONCE": 1 << 62})
TRICKS = (
    Trick("Winograd's products", ("kernels/native/winograd.hpp",), PICTURES, partial(_unplanned, "winograd")),
    Trick("products behind a pool with what is there alone", _SCATTERED, POOLED, partial(_unplanned, "scattered")),
    Trick("δ kept at the pool's size", (*_UNPOOLING, *_SCATTERED, "kernels/native/maxima.hpp"), POOLED,
          partial(_unprepared, AT_FULL_SIZE)),
    Trick("backsteps", _UNPOOLING, POOLED, partial(_unprepared, NO_BACKSTEPS)),
    Trick("micro-batches", ("gradscore/scoring/micro_batch.py", "gradscore/scoring/computation.py"), COMPARED, _in_one_piece),
    Trick("all kernels in one call", ("kernels/gradscore_kernels/_program.py", "kernels/native/program.hpp"), COMPARED,
          _one_by_one),
    Trick("decoding processes", tuple(f"{_PREFETCH}/{name}.py" for name in ("decoders", "decoding_process",
          "decoding_service", "found")), PICTURES, partial(_streaming, _decoded_here)),
    Trick("reading ahead and decoding processes", (f"{_PREFETCH}/pipeline.py",), PICTURES, partial(_streaming, _read_in_turn)),
    Trick("single requests scored together", ("gradscore/scoring/serving.py",), COMPARED, _requests),
    Trick("self-scoring: first maxima without Indices", (f"{_GRAPH}/statistics/first_maxima.py",), POOLED,
          partial(_unfused, INDICES)),
    Trick("self-scoring: small layers together", (f"{_GRAPH}/statistics/append.py",), COMPARED,
          partial(_unfused, ALONE)),
    Trick("self-scoring: large gradients sample by sample", (f"{_GRAPH}/statistics/samples.py",), ("resnet18", "transformer"),
          partial(_unfused, ALL_AT_ONCE)),
)  # fmt: skip
