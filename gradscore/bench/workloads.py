"""Workloads of the benchmark: classifiers prepared in a folder as classifier.onnx, scoring.onnx and inputs.npy."""

from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gradscore.errors import GradscoreError, InputError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class BenchmarkModel:
    """A classifier of the benchmark: its factory, the shape of an input, the batch size."""

    title: str
    factory: str
    shape: tuple[int, ...]
    batch: int


BENCHMARK_MODELS = {
    "paper-cnn": BenchmarkModel("paper's CNN", "models.benchmark:paper_cnn", (1, 28, 28), 256),
    "resnet18": BenchmarkModel("ResNet-18, 32×32", "models.benchmark:resnet18", (3, 32, 32), 32),
    "mlp": BenchmarkModel("MLP 784-512-512-10", "models.benchmark:mlp", (784,), 256),
    "transformer": BenchmarkModel("transformer, 2 layers, d 128, T 64", "models.benchmark:transformer", (64, 32), 64),
    "resnet18-224": BenchmarkModel("ResNet-18, 224×224", "models.benchmark:large_resnet18", (3, 224, 224), 32),
}
COMPARED = ("paper-cnn", "resnet18", "mlp", "transformer")  # all ways take minutes and a few gigabytes on these


@dataclass(frozen=True)
class Workload:
    """A classifier with its files in a folder. `module` and `batch` are loaded at first use."""

    name: str
    folder: Path
    threads: int

    @property
    def classifier(self) -> BenchmarkModel:
        """The measured classifier."""
        return BENCHMARK_MODELS[self.name]

    @property
    def onnx(self) -> Path:
        """The exported classifier."""
        return self.folder / "classifier.onnx"

    @property
    def scoring(self) -> Path:
        """The scoring model."""
        return self.folder / "scoring.onnx"

    @cached_property
    def module(self) -> "torch.nn.Module":
        """The torch module in eval mode. Loading it also sets the number of torch's threads."""
        import torch  # noqa: PLC0415 - scoring does not need it

        from gradscore.exporting.export import load_module  # noqa: PLC0415 - loads torch

        torch.set_num_threads(self.threads)
        return load_module(self.classifier.factory).eval()

    @cached_property
    def batch(self) -> NDArray[np.float32]:
        """One batch of inputs."""
        batch: NDArray[np.float32] = np.load(self.folder / "inputs.npy")
        return batch


def make_ready(name: str, folder: Path, *, threads: int) -> Workload:
    """Export and prepare a classifier. Batch normalisations stay separate layers, as in the other ways.

    Raises
    ------
    InputError
        The classifier does not exist, or its module is missing.
    GradscoreError
        torch is not installed.
    """
    if find_spec("torch") is None:
        raise GradscoreError('the benchmark\'s models are torch modules: pip install "gradscore[export]"')
    import torch  # noqa: PLC0415 - heavy

    from gradscore import export_classifier, prepare  # noqa: PLC0415 - loads onnx

    if name not in BENCHMARK_MODELS:
        raise InputError(f"unknown benchmark model {name!r}: choose from {', '.join(BENCHMARK_MODELS)}")
    folder.mkdir(parents=True, exist_ok=True)
    workload = Workload(name, folder, threads)
    try:
        module = workload.module
    except InputError as error:
        raise InputError(
            f"{error}; the benchmark's models are in gradscore's repository: run it from a checkout"
        ) from error
    rng = np.random.default_rng(0)
    batch = rng.standard_normal((workload.classifier.batch, *workload.classifier.shape), dtype=np.float32)
    np.save(folder / "inputs.npy", batch)
    export_classifier(module, torch.from_numpy(batch[:2]), workload.onnx, overwrite=True)
    prepare(workload.onnx, workload.scoring, overwrite=True)
    return workload
