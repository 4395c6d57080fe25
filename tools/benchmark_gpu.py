"""Print what a CUDA device does: kernels against the reference and in GB/s or GFLOP/s, and images/s of ResNet-50 at 224².

Usage: python -m tools.benchmark_gpu [--batch N] [--kernels-only]. Needs torch with CUDA, numba-cuda and, for scoring,
onnxruntime-gpu and the gradient builder.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradscore_kernels as kernels
import numpy as np

from gradscore.bench.kernel_cases import CASES
from gradscore.bench.timing import Timing, interleaved

PROVIDER = "CUDAExecutionProvider"
Row = tuple[str, ...]


def main() -> None:
    """Print one table a part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32, help="images of a batch of ResNet-50")
    parser.add_argument("--kernels-only", action="store_true", help="leave out scoring, which needs onnxruntime-gpu")
    options = parser.parse_args()
    import torch

    if "cuda" not in kernels.available_backends() or not torch.cuda.is_available():
        sys.exit(f"no CUDA device, or numba-cuda or torch without CUDA: {torch.__version__}")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    _print(("case", "cuda", "rate", "native, one core", "error"), kernel_rows())
    if not options.kernels_only:
        _print(("ResNet-50, 224²", "images/s", "peak device memory"), scoring_rows(options.batch))


def kernel_rows() -> Iterator[Row]:
    """Every case on arrays that lie in device memory; the error is the worst difference of a statistic to native's."""
    import torch

    for name, case in CASES.items():
        host = case.arrays()
        device = [torch.from_numpy(array).cuda() for array in host]
        run: Callable[..., Any] = getattr(kernels, case.kernel)
        tasks = {
            "cuda": lambda run=run, device=device, case=case: run(*device, **case.extra),
            "native": lambda case=case, host=host: case.call(host, "native"),
        }
        found, expected = (kernels.statistics(task()) for task in tasks.values())
        error = np.max(np.abs(found - expected) / (1e-30 + np.abs(expected).max(0)))
        timings = interleaved(tasks, repeats=20)
        rate = f"{case.work / timings['cuda'].best:,.0f} {case.limit.unit}"
        yield name, _milliseconds(timings["cuda"]), rate, _milliseconds(timings["native"]), f"{error:.1e}"


def scoring_rows(batch: int) -> Iterator[Row]:
    """Scoring on the device beside torch's ways on the same device."""
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
        scorer = Scorer.load(folder / "scoring.onnx", providers=[PROVIDER])
        workload = _OnDevice(module.cuda(), torch.from_numpy(images).cuda())
        tasks = {
            "gradscore, onnxruntime-gpu": lambda: scorer.score(images),
            "torch forward+backward": _synchronous(peers.forward_and_backward(workload)),  # type: ignore[arg-type]  # has what it needs
            "torch vmap + 8 statistics": _synchronous(peers.by_vmap(workload)),  # type: ignore[arg-type]  # has what it needs
        }
        memory = {}
        for way, task in tasks.items():
            torch.cuda.reset_peak_memory_stats()
            task()
            memory[way] = torch.cuda.max_memory_allocated() if way.startswith("torch") else None
        timings = interleaved(tasks, repeats=10, patience=60)
    for way, timing in timings.items():
        held = memory[way]
        yield way, f"{batch / timing.best:,.0f}", f"{held / 1e9:.1f} GB" if held else "onnxruntime's own"


class _OnDevice:
    """A workload whose module and batch lie on the device."""

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
    return f"{timing.best * 1e3:,.3f} ms ({timing.spread:.0%})"


def _print(headings: Row, rows: Iterator[Row]) -> None:
    print(f"\n| {' | '.join(headings)} |\n| {' | '.join('---' for _ in headings)} |")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
