"""Benchmark on a CUDA device: kernels against their limits, and ResNet-50 against torch.

Usage: python -m tools.benchmark_gpu [--batch N] [--kernels-only]. It writes tools/results/gpu.md. It needs torch with
CUDA, numba-cuda and, for scoring, onnxruntime-gpu and the gradient builder. All arithmetic is float32: TF32 is off.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradscore_kernels as kernels
import numpy as np
from numpy.typing import NDArray

from gradscore.bench.kernel_cases import CASES
from gradscore.bench.limits import Limit
from gradscore.bench.timing import Timing, interleaved
from gradscore.scoring.scores import Scores

RESULTS = Path(__file__).parent / "results" / "gpu.md"
PROVIDER = "CUDAExecutionProvider"
CALLS = 16  # kernel calls between two waits for the device
CHECKED = 4  # samples compared with the reference, and images compared with the CPU
Row = tuple[str, ...]
Score = Callable[[NDArray[np.float32]], Any]  # images -> columns by feature name


def main() -> None:
    """Print one table per part, and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32, help="images of a batch of ResNet-50")
    parser.add_argument("--kernels-only", action="store_true", help="omit scoring, which needs onnxruntime-gpu")
    options = parser.parse_args()
    import torch

    if "cuda" not in kernels.available_backends() or not torch.cuda.is_available():
        sys.exit(f"no CUDA device, no numba-cuda, or torch {torch.__version__} without CUDA: see `gradscore doctor`")
    torch.backends.cudnn.allow_tf32 = False
    text = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}\n"
    heading = ("case", "cuda, alone", "cuda, of many", "rate", "of its limit", "native, one core", "error")
    text += _table(heading, kernel_rows())
    if not options.kernels_only:
        heading = (f"ResNet-50, 224², batch {options.batch}", "images/s", "device memory", "error")
        text += _table(heading, scoring_rows(options.batch))
        RESULTS.write_text(text)


def kernel_rows() -> Iterator[Row]:
    """Yield a row per case, on arrays in device memory.

    The error is the largest difference of a statistic from the reference, relative to the statistic's scale.
    """
    import torch

    limits = {"GFLOP/s": _limit(_product(torch)), "GB/s": _limit(_reading(torch))}
    for name, case in CASES.items():
        host = case.arrays()
        device = [torch.from_numpy(array).cuda() for array in host]
        run: Callable[..., Any] = getattr(kernels, case.kernel)
        alone = partial(run, *device, **case.extra)
        tasks = {
            "alone": alone, "many": partial(_together, alone), "native": partial(case.call, host, "native"),
        }  # fmt: skip
        found = kernels.statistics(run(*(array[:CHECKED] for array in device), **case.extra))
        expected = kernels.statistics(case.call([array[:CHECKED] for array in host], "reference"))
        error = np.max(np.abs(found - expected) / (1e-30 + np.abs(expected).max(0)))
        timings = interleaved(tasks, repeats=7, turn=0.02)
        rate = CALLS * case.work / timings["many"].best
        each = f"{timings['many'].best / CALLS * 1e3:,.3f} ms"
        yield (
            name, _milliseconds(timings["alone"]), each, f"{rate:,.0f} {case.limit.unit}",
            f"{rate / limits[case.limit.unit]:.0%}", _milliseconds(timings["native"]), f"{error:.1e}",
        )  # fmt: skip


def _together(call: Callable[[], object]) -> None:
    """Call a kernel several times as a model's program does, with one wait for all results."""
    from gradscore_kernels.backends.cuda.launches import together

    with together():
        for _ in range(CALLS):
            call()


def _product(torch: Any) -> Limit:
    side = 4096
    left, right = torch.randn(2, side, side, device="cuda")
    return Limit("sgemm", 2 * side**3 / 1e9, "GFLOP/s", _synchronous(lambda: left @ right))


def _reading(torch: Any) -> Limit:
    values = torch.ones(1 << 28, device="cuda")
    return Limit("memory read", 4 * len(values) / 1e9, "GB/s", _synchronous(values.sum))


def _limit(limit: Limit) -> float:
    return limit.work / interleaved({limit.name: limit.task}, repeats=10)[limit.name].best


def scoring_rows(batch: int) -> Iterator[Row]:
    """Yield a row per way of scoring on the device.

    Errors compare `CHECKED` images with the CPU's kernels.
    """
    import torch

    from gradscore import Scorer, export_classifier, prepare
    from gradscore.bench import peers
    from models.resnet50 import ResNet50

    torch.manual_seed(0)
    module = ResNet50().eval()
    images = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), dtype=np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_classifier(module, torch.from_numpy(images[:2]), folder / "classifier.onnx")
        prepare(folder / "classifier.onnx", folder / "scoring.onnx")
        cpu = Scorer.load(folder / "scoring.onnx")
        expected = cpu.score(images[:CHECKED])
        # Two correct float32 computations differ this much on these weights, because a ReLU near 0 may go either way.
        near = cpu.score(images[:CHECKED] * np.float32(1 + 1.2e-7))
        load = partial(Scorer.load, folder / "scoring.onnx", providers=[PROVIDER])
        ways: dict[str, Score] = {f"gradscore, back end {name}": load(backend=name).score for name in ("graph", "cuda")}
        ways["self-scoring file, all features"] = _self_scoring(folder)
    workload: Any = _OnDevice(module.cuda(), torch.from_numpy(images).cuda())
    tasks: dict[str, Callable[[], object]] = {way: partial(score, images) for way, score in ways.items()}
    tasks["torch forward+backward, no statistics"] = _synchronous(peers.forward_and_backward(workload))
    tasks["torch vmap + 8 statistics"] = _synchronous(peers.by_vmap(workload))
    memory = {way: _memory(torch, task) for way, task in tasks.items()}
    timings = interleaved(tasks, repeats=10, patience=10)
    for way, timing in timings.items():
        error = f"{_error(ways[way](images[:CHECKED]), expected):.1e}" if way in ways else ""
        yield way, f"{batch / timing.best:,.0f}", f"{memory[way] / 1e9:.1f} GB", error
    yield "the CPU's kernels, inputs one rounding off", "", "", f"{_error(near, expected):.1e}"


def _self_scoring(folder: Path) -> Score:
    """Return a function that runs a self-scoring model, optimised for the device, in its own session."""
    from gradscore import fuse
    from gradscore.runtime.session import open_session

    fused = fuse(folder / "scoring.onnx", folder / "fused.onnx", features=["*"], provider=PROVIDER)
    session = open_session(folder / "fused.onnx", providers=[PROVIDER])

    def score(images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        (features,) = session.run([fused.added["features"]], {fused.inputs[0].name: images})
        return dict(zip(fused.feature_names, features.T, strict=True))

    return score


def _memory(torch: Any, task: Callable[[], object]) -> int:
    """Return the device memory that a task takes, in bytes."""
    torch.cuda.empty_cache()
    before = torch.cuda.mem_get_info()[0]
    task()
    taken: int = before - torch.cuda.mem_get_info()[0]
    return taken


def _error(found: Scores | dict[str, NDArray[np.float32]], expected: Scores) -> float:
    """Return the largest difference of a feature relative to its scale.

    The scale is the feature's size, but at least the layer's standard deviation for minimum, maximum and mean, and at
    least 1 for skewness and kurtosis.
    """
    worst = 0.0
    for name in expected.feature_names:
        layer, _, statistic = name.rpartition(".")
        scale = np.abs(expected[name])
        if statistic in {"min", "max", "mean"}:
            scale = np.maximum(scale, expected[f"{layer}.std"])
        if statistic in {"skewness", "kurtosis"}:
            scale = np.maximum(scale, 1)
        worst = max(worst, float(np.max(np.abs(found[name] - expected[name]) / scale)))
    return worst


class _OnDevice:
    """A workload whose module and batch are on the device."""

    def __init__(self, module: Any, batch: Any) -> None:
        self.module, self.batch = module, batch


def _synchronous(task: Callable[[], object]) -> Callable[[], object]:
    import torch

    def run() -> object:
        result = task()
        torch.cuda.synchronize()
        return result

    return run


def _milliseconds(timing: Timing) -> str:
    return f"{timing.best * 1e3:,.3f} ms"


def _table(headings: Row, rows: Iterator[Row]) -> str:
    lines = [f"\n| {' | '.join(headings)} |", f"| {' | '.join('---' for _ in headings)} |"]
    print("\n".join(lines))
    for row in rows:
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
