"""Training of one CNN as in the paper, cached by everything that its weights depend on.

Where the paper is not specific, these choices apply. Dropout acts on the maps of the first convolution and on the inputs
of the dense layer. L2 1e-3 is SGD's weight decay on weights and biases. "Stagnates" means no better validation accuracy
for `patience` epochs. Training ends when the smallest rate stagnates too. The last weights are kept.
"""

import hashlib
import inspect
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from gradscore import InputError
from gradscore.files.writing import replacing
from models import paper_cnn
from tools.paper.splits import Part, Repetition

RATE_FACTOR = 0.1


@dataclass(frozen=True)
class Training:
    """Settings of the training of a CNN."""

    batch: int = 256
    momentum: float = 0.9
    weight_decay: float = 1e-3
    first_rate: float = 0.1
    last_rate: float = 0.001
    patience: int = 3
    most_epochs: int = 100


@dataclass(frozen=True)
class Trained:
    """A trained CNN.

    Attributes
    ----------
    model : torch.nn.Module
        The CNN in eval mode.
    folder : Path
        Cache folder for results computed with it.
    seconds : float
        Seconds that its training took.
    """

    model: nn.Module
    folder: Path
    seconds: float


def trained(repetition: Repetition, training: Training, cache: Path) -> Trained:
    """Return the CNN of a repetition, from the cache if it is there.

    Raises
    ------
    InputError
        The training diverged.
    """
    folder = cache / f"cnn-{_key(repetition, training)}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.with_suffix(".safetensors")
    if not path.exists():
        start = time.perf_counter()
        state = _train(repetition, training)
        with replacing(path, overwrite=True) as part:
            save_file(state, part, {"seconds": str(time.perf_counter() - start)})
    model = paper_cnn.PaperCNN()
    with safe_open(path, "pt") as file:
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - not a mapping
        return Trained(model.eval(), folder, float(file.metadata()["seconds"]))


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the fraction of right predictions in eval mode."""
    model.eval()
    with torch.no_grad():
        right = [
            int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(2000), labels.split(2000), strict=True)
        ]
    return sum(right) / len(labels)


def _train(repetition: Repetition, training: Training) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(repetition.seed)
        model = paper_cnn.PaperCNN().to(memory_format=torch.channels_last)
        images, labels = _tensors(repetition.training)
        held_out = _tensors(repetition.validation)
        optimizer = torch.optim.SGD(
            model.parameters(), training.first_rate, training.momentum, weight_decay=training.weight_decay
        )
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, "max", RATE_FACTOR, training.patience, threshold=0.0
        )
        for _ in range(training.most_epochs):
            _epoch(model, optimizer, images, labels, training.batch)
            plateau.step(accuracy(model, *held_out))
            if optimizer.param_groups[0]["lr"] < training.last_rate * (1 - 1e-9):
                break
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
        raise InputError(f"the CNN of repetition {repetition.seed} diverged: lower Training.first_rate")
    return state


def _epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor, batch: int
) -> None:
    model.train()
    for rows in torch.randperm(len(images)).split(batch):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()


def _tensors(part: Part) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.from_numpy(part.images.astype(np.float32) / 255)
    return pixels.contiguous(memory_format=torch.channels_last), torch.from_numpy(part.labels)


def _key(repetition: Repetition, training: Training) -> str:
    seen = hashlib.sha256()
    for part in (repetition.training, repetition.validation):
        seen.update(part.images.tobytes() + part.labels.tobytes())
    parts = (inspect.getsource(paper_cnn), repr(asdict(training)), str(repetition.seed), seen.hexdigest())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
