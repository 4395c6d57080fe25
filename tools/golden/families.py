"""Every family of classifiers of the tests' zoo: scoring model, features by each back end, gradients, self-scoring model."""

import importlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from gradscore import GradscoreError, Scorer, export_classifier, fuse, prepare
from tools.golden.commands import run
from tools.golden.meaning import Meaning, of_array

BACKENDS = ("native", "numba", "reference", "graph")
PROVIDERS = ("CPUExecutionProvider", "CUDAExecutionProvider")
SLOWEST = ("attention", "efficientnet", "gru", "levit", "lstm", "mobilenet_v2", "swin")
TRACED = ("attention", "cnn_1d", "gru", "resnet", "unet", "vit")
QUICK_VARIANTS = ("cnn_1d", "unet")
BY_THE_OTHER_ENGINE = ("attention", "bert", "cnn_1d", "gru", "shared", "unet", "vit")

Built = tuple[nn.Module, torch.Tensor]


class OneLogit(nn.Module):
    """A sigmoid of one logit: two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(5, 8), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the probability [B, 1] of the second class."""
        return torch.sigmoid(self.out(torch.relu(self.hidden(x))))


class Uncovered(nn.Module):
    """A stack of matrices, and a matrix of which only a part is used: no rule covers these."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 12)
        self.stack, self.wide = nn.Parameter(torch.randn(3, 4, 4)), nn.Parameter(torch.randn(12, 9))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits [B, 5]."""
        x = torch.tanh(self.enter(x)).reshape(-1, 3, 1, 4)
        x = torch.tanh(torch.matmul(x, self.stack)).reshape(-1, 12)
        return x @ torch.tanh(self.wide)[:, :5]


def _half() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5), nn.Softmax(-1)).half()


BESIDE: dict[str, Callable[[], Built]] = {
    "paper_cnn": lambda: (importlib.import_module("models.paper_cnn").PaperCNN(), torch.rand(2, 1, 28, 28)),
    "digits_cnn": lambda: (importlib.import_module("models.digits_cnn").DigitsCNN(), torch.rand(2, 1, 8, 8)),
    "transformer": lambda: (importlib.import_module("models.transformer").Transformer(), torch.randn(2, 64, 32)),
    "one_logit": lambda: (OneLogit(), torch.randn(2, 5)),
    "uncovered": lambda: (Uncovered(), torch.randn(2, 6)),
    "half": lambda: (_half(), torch.rand(2, 1, 8, 8).half()),
}


@dataclass(frozen=True)
class Family:
    """One way from a classifier to a scoring model."""

    name: str
    build: Callable[[], Built]
    export: Callable[[nn.Module, torch.Tensor, Path], None]
    engine: str = "ort-training"


def record(folder: Path, meaning: Meaning, root: Path, *, quick: bool) -> dict[str, Any]:
    """Record every family; return what is found."""
    (folder / "zoo").mkdir()
    things: dict[str, Any] = {}
    for family in _families(_zoo(root), quick=quick):
        start = time.process_time()
        try:
            recorded = _recorded(family, folder, meaning, root)
        except Exception as error:  # a failure is a difference, and hides no other
            recorded = {"failed": f"{type(error).__name__}: {error}"}
        things |= {f"family {family.name}: {name}": found for name, found in recorded.items()}
        print(f"{family.name}: {time.process_time() - start:.1f} s of a processor", flush=True)
    return things


def _zoo(root: Path) -> ModuleType:
    """Return the tests' zoo; a checkout older than `tests/support` has it among the tests, and can be recorded as well."""
    if (root / "tests/support/zoo.py").exists():
        return importlib.import_module("tests.support.zoo")
    sys.path.insert(0, str(root / "tests"))
    return importlib.import_module("zoo")


def _families(zoo: ModuleType, *, quick: bool) -> list[Family]:
    def exported(exporter: str) -> Callable[[nn.Module, torch.Tensor, Path], None]:
        return lambda module, example, path: zoo.export(module, example, path, exporter)

    def built(name: str) -> Callable[[], Built]:
        return lambda: zoo.build(name)

    names = [name for name in zoo.ZOO if not (quick and name in SLOWEST)]
    again = QUICK_VARIANTS if quick else names
    found = [Family(name, built(name), exported(zoo.EXPORTERS.get(name, "dynamo"))) for name in names]
    found += [Family(f"{name}-traced", built(name), exported("torchscript")) for name in TRACED if name in again]
    found += [
        Family(f"{name}-onnx-ad", built(name), exported("dynamo"), "onnx-ad")
        for name in BY_THE_OTHER_ENGINE
        if name in again
    ]
    found.append(Family("resnet-folded", built("resnet"), _fold))
    found.append(Family("perceptron", zoo.perceptron, exported("skl2onnx")))
    return found + [Family(name, _seeded(build), exported("dynamo")) for name, build in BESIDE.items()]


def _fold(module: nn.Module, example: torch.Tensor, path: Path) -> None:
    export_classifier(module, example, path, fold_batch_norm=True)


def _seeded(build: Callable[[], Built]) -> Callable[[], Built]:
    def seeded() -> Built:
        torch.manual_seed(13)
        module, example = build()
        return module.eval(), example

    return seeded


def _recorded(family: Family, folder: Path, meaning: Meaning, root: Path) -> dict[str, Any]:
    """Return what one family's files and numbers mean; what the toolkit refuses to do is recorded as such."""
    classifier, scoring = (f"zoo/{family.name}.{ending}onnx" for ending in ("", "scoring."))
    module, example = family.build()
    family.export(module, example, folder / classifier)
    things: dict[str, Any] = {"classifier": meaning.of(folder / classifier)}
    prepare(folder / classifier, folder / scoring, engine=family.engine)
    things["scoring model"] = meaning.of(folder / scoring)
    things["inspect --json"] = meaning.of_text(run(["inspect", scoring, "--json"], folder, root).stdout.decode())
    batch = _batch(example.numpy())
    for backend in BACKENDS:
        with Scorer.load(folder / scoring, backend=backend, threads=1) as scorer:
            things[f"features by {backend}"] = _features(scorer, batch, folder / f"zoo/{family.name}.{backend}.npz")
            if backend != "graph":
                things[f"gradients by {backend}"] = _gradients(scorer, batch)
    for provider in PROVIDERS:
        things[f"self-scoring model for {provider}"] = _fused(folder / scoring, provider, meaning)
    return things


def _batch(example: np.ndarray) -> np.ndarray:
    """Return the example, it turned around, and of numbers nothing at all and something large, which is a sure prediction."""
    turned = example[..., ::-1]
    if example.dtype.kind == "i":
        return np.concatenate([example, turned])
    return np.concatenate([example, turned, 0 * example[:1], 20 * example[:1]])


def _features(scorer: Scorer, batch: np.ndarray, path: Path) -> dict[str, str]:
    """Return a digest of each feature, and write the numbers beside the model."""
    scores = scorer.score(batch)
    np.savez(path, features=scores.features, label=scores.label)
    columns = {name: of_array(scores[name]) for name in scores.feature_names}
    return {"order": ", ".join(scores.feature_names), "label": of_array(scores.label), **columns}


def _gradients(scorer: Scorer, batch: np.ndarray) -> dict[str, dict[str, str]]:
    found = scorer.layer_gradients(batch)
    return {layer: {name: of_array(values) for name, values in of.items()} for layer, of in found.items()}


def _fused(scoring: Path, provider: str, meaning: Meaning) -> Any:
    path = scoring.with_suffix(f".{provider}.onnx")
    try:
        fuse(scoring, path, features=["*"], drop_outputs=True, provider=provider)
    except GradscoreError as error:
        return f"refused: {type(error).__name__}"
    return meaning.of(path)
