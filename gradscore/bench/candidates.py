"""Candidates of the scoring benchmark: gradscore's own ways first, then other implementations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore.bench import peers
from gradscore.bench.timing import Task
from gradscore.bench.workloads import Workload
from gradscore.model.metadata import SIGNAL_LABEL
from gradscore.model.model_file import read_metadata
from gradscore.runtime.session import SignalSession, open_session
from gradscore.scoring.backends import GRAPH, backend_named
from gradscore.scoring.computation import Computation
from gradscore.scoring.scorer import Scorer
from gradscore.scoring.tensors import tensors_of

EIGHT = "8 statistics of every layer"
PEERS = 'pip install "gradscore[export,peers]"'


@dataclass(frozen=True)
class Candidate:
    """One way to measure: its result, its module, its installation and its start."""

    gives: str
    module: str
    install: str
    start: Callable[[Workload], Task]

    @property
    def is_here(self) -> bool:
        """Whether the required module is installed."""
        return find_spec(self.module) is not None


class SignalsAlone(Computation):
    """The computation of a scorer without kernels: same session, micro-batches and threads, but no statistics."""

    def _micro_batch(self, inputs: Mapping[str, NDArray[Any]], **_: Any) -> tuple[Any, list[NDArray[np.float64]]]:
        labels = self._session.run(inputs)[SIGNAL_LABEL]
        return labels, [np.zeros((len(labels), len(self.feature_names)))]


def _score(workload: Workload) -> Task:
    scorer, batch = Scorer.load(workload.scoring, threads=workload.threads), workload.batch
    return lambda: scorer.score(batch)


def _graph(workload: Workload) -> Task:
    scorer, batch = Scorer.load(workload.scoring, backend=GRAPH.name, threads=workload.threads), workload.batch
    return lambda: scorer.score(batch)


def _signals(workload: Workload) -> Task:
    session, batch = SignalSession(workload.scoring, threads=workload.threads), workload.batch
    metadata = read_metadata(workload.scoring)
    computation = SignalsAlone(session, metadata, backend_named("auto", None), workload.threads, ())
    return lambda: computation.scores(tensors_of(batch, metadata), workload.threads)


def _forward(workload: Workload) -> Task:
    session = open_session(workload.onnx, threads=workload.threads)
    feed = {session.get_inputs()[0].name: workload.batch}
    return lambda: session.run(None, feed)


CANDIDATES: dict[str, Candidate] = {
    "gradscore": Candidate(EIGHT, "onnxruntime", 'pip install "gradscore[cpu]"', _score),
    "gradscore, graph": Candidate(EIGHT, "onnxruntime", 'pip install "gradscore[cpu]"', _graph),
    "signals alone": Candidate(
        "gradscore without its kernels", "onnxruntime", 'pip install "gradscore[cpu]"', _signals
    ),
    "onnxruntime forward": Candidate("labels alone", "onnxruntime", 'pip install "gradscore[cpu]"', _forward),
    "torch forward+backward": Candidate("no per-sample gradient", "torch", PEERS, peers.forward_and_backward),
    "torch vmap": Candidate(EIGHT, "torch", PEERS, peers.by_vmap),
    "torch loop": Candidate(EIGHT, "torch", PEERS, peers.by_loop),
    "BackPACK": Candidate(EIGHT, "backpack", PEERS, peers.by_backpack),
    "gradient-metrics": Candidate("6 statistics of every layer", "gradient_metrics", PEERS, peers.by_gradient_metrics),
}
