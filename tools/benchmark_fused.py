"""Benchmark of self-scoring models against the signals form with kernels and the classifier alone.

Usage: python -m tools.benchmark_fused. It writes tools/results/fused.md. Every time is the fastest of many turns. All
ways run in turn in one process.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer

from gradscore import Scorer, Verdict, fuse
from gradscore.bench.timing import Task, interleaved
from gradscore.bench.workloads import Workload, make_ready
from gradscore.preparing.inspection import inspect_model
from gradscore.runtime.session import CPU_PROVIDER, load_onnxruntime

RESULTS = Path(__file__).parent / "results" / "fused.md"
BATCH = 32
REST = 0.1  # seconds: with the runtime's own settings, threads spin longer than with gradscore's
LAST_STAGE = ("blocks.6.*", "blocks.7.*", "fc.*")
SIX_OF_LAST_STAGE = (
    "blocks.6.conv2.l2", "blocks.7.conv1.max", "blocks.7.conv2.l2", "blocks.7.conv2.std", "fc.l1", "fc.kurtosis",
)  # fmt: skip
SIX = {
    "paper-cnn": ("conv2.skewness", "conv3.l2", "conv3.max", "fc.l1", "fc.kurtosis", "residual"),
    "resnet18": SIX_OF_LAST_STAGE,
    "resnet18-224": SIX_OF_LAST_STAGE,
}


@dataclass(frozen=True)
class Target:
    """The largest allowed ratio of the times of two ways."""

    model: str
    way: str
    against: str
    most: float


TARGETS = (
    Target("paper-cnn", "self-scoring, all features", "signals and kernels", 1.6),
    Target("paper-cnn", "self-scoring, verdict of 6 features", "self-scoring, all features", 0.6),
    *(
        Target(model, f"self-scoring, {features}", "classifier alone", 2.0)
        for model in ("resnet18", "resnet18-224")
        for features in ("verdict of 6 last-stage features", "all last-stage features")
    ),
)


def _verdict(scorer: Scorer, names: Sequence[str], rows: np.ndarray) -> Verdict:
    """Fit a verdict that reads exactly these features. Its quality does not matter here."""
    scores = scorer.score(rows)
    return Verdict.fit(
        scores.features, scores["all.l2"] < np.median(scores["all.l2"]), feature_names=scores.feature_names,
        model_fingerprint=scorer.fingerprint, method="ridge", select=names, folds=0,
    )  # fmt: skip


def _session(path: Path, workload: Workload) -> Task:
    """Open a file as a user without gradscore does: only the number of threads is set."""
    runtime = load_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = workload.threads
    session = runtime.InferenceSession(path, options, providers=[CPU_PROVIDER])
    feed = {session.get_inputs()[0].name: workload.batch[:BATCH]}
    return lambda: session.run(None, feed)


def _fused_ways(workload: Workload, scorer: Scorer) -> dict[str, Path]:
    """Write the self-scoring models to measure, and return their paths by way."""
    name, folder = workload.name, workload.folder
    rows = np.random.default_rng(1).standard_normal((60, *workload.classifier.shape), dtype=np.float32)
    verdict = _verdict(scorer, SIX[name], rows)
    stage = "last-stage features" if SIX[name] is SIX_OF_LAST_STAGE else "features"
    ways = {
        f"self-scoring, verdict of 6 {stage}": folder / "six.onnx",
        f"self-scoring, all {stage}": folder / "all.onnx",
    }
    fuse(workload.scoring, folder / "six.onnx", verdict=verdict)
    fuse(workload.scoring, folder / "all.onnx", features=LAST_STAGE if SIX[name] is SIX_OF_LAST_STAGE else ("*",))
    return ways


def _measure(name: str, folder: Path, threads: int, repeats: int) -> tuple[list[str], dict[str, float]]:
    """Return the rows of the table, and seconds by way."""
    workload = make_ready(name, folder / name, threads=threads)
    scorer = Scorer.load(workload.scoring, threads=threads)
    files = _fused_ways(workload, scorer)
    batch = workload.batch[:BATCH]
    tasks: dict[str, Task] = {
        "classifier alone": _session(workload.onnx, workload),
        "signals and kernels": lambda: scorer.score(batch),
        **{way: _session(path, workload) for way, path in files.items()},
    }
    for task in tasks.values():
        task()
    seconds = {way: timing.best for way, timing in interleaved(tasks, repeats=repeats, patience=60, rest=REST).items()}
    return [_row(name, way, seconds, files) for way in tasks], seconds


def _row(name: str, way: str, seconds: Mapping[str, float], files: Mapping[str, Path]) -> str:
    cells = [name, way, f"{seconds[way] / BATCH * 1e6:,.0f}", f"{seconds[way] / seconds['classifier alone']:.2f}"]
    if way in files:
        cost = inspect_model(files[way])["cost"]
        cells += [f"{cost['added_nodes']:,}", f"{cost['added_weight_bytes']:,}", f"{cost['flops_ratio']:.2f}"]
    return "| " + " | ".join([*cells, *[""] * (7 - len(cells))]) + " |"


def main(threads: int = 2, repeats: int = 40) -> None:
    """Measure, print and write the tables."""
    rows, seconds = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name in SIX:
            own, seconds[name] = _measure(name, Path(folder), threads, repeats if name == "paper-cnn" else repeats // 4)
            rows += own
    judged = [
        f"| {target.model}: {target.way} ÷ {target.against} | ≤ {target.most} | {ratio:.2f} | {'yes' if ratio <= target.most else 'no'} |"
        for target in TARGETS
        for ratio in [seconds[target.model][target.way] / seconds[target.model][target.against]]
    ]
    text = "\n".join(
        [
            "# Self-scoring models",
            "",
            f"`python -m tools.benchmark_fused`: batches of {BATCH}, {threads} threads, fastest of many turns, all ways in turn.",
            "The classifier and the self-scoring models run with onnxruntime's own settings; only the number of threads is set.",
            "A multiplication with an addition counts as two FLOPs. The classifier alone has 1.",
            "",
            "| model | way | µs an input | × classifier | nodes added | bytes added | × FLOPs |",
            "|---|---|---:|---:|---:|---:|---:|",
            *rows,
            "",
            "| ratio | must | measured | reached |",
            "|---|---|---|---|",
            *judged,
            "",
        ]
    )
    RESULTS.write_text(text)
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
