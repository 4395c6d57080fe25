"""Training of one classifier, cached by everything that its weights depend on.

The rate rises over the first part of the training and falls to nothing at its end (Smith and Topin 2019,
"Super-Convergence"). The last weights are kept, so that no held-out row is looked at.
"""

import hashlib
import inspect
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from gradscore import InputError
from gradscore.files.writing import replacing
from tools.decisions.material import Rows

CROP = 4  # pixels by which a crop may move


@dataclass(frozen=True)
class Training:
    """Settings of a training.

    Attributes
    ----------
    epochs, batch : int
        Passes over the rows, and rows of a step.
    rate, decay : float
        The highest learning rate, and the weight decay.
    optimizer : str
        A key of `OPTIMIZERS`.
    augment : bool
        Whether pictures are mirrored and moved at random.
    """

    epochs: int
    rate: float
    decay: float = 5e-4
    batch: int = 128
    optimizer: str = "sgd"
    augment: bool = False


OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = MappingProxyType(
    {
        "sgd": lambda weights, rate, decay: torch.optim.SGD(weights, rate, 0.9, weight_decay=decay, nesterov=True),
        "adamw": lambda weights, rate, decay: torch.optim.AdamW(weights, rate, weight_decay=decay),
    }
)


@dataclass(frozen=True)
class Trained:
    """A trained classifier in eval mode, the key of its training, and the seconds that it took."""

    model: nn.Module
    key: str
    seconds: float


def trained(make: Callable[[], nn.Module], rows: Rows, training: Training, seed: int, cache: Path) -> Trained:
    """Return the classifier that `make` builds, trained on the rows, from the cache folder if it is there.

    Raises
    ------
    InputError
        The training diverged.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make()
        key = _key(model, rows, training, seed)
        path = cache / f"classifier-{key}.safetensors"
        if not path.exists():
            start = time.perf_counter()
            _train(model, rows, training)
            state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
            if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
                raise InputError(f"the classifier of seed {seed} diverged: lower the rate in its task's Training")
            with replacing(path, overwrite=True) as part:
                save_file(state, part, {"seconds": str(time.perf_counter() - start)})
    with safe_open(path, "pt") as file:
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - not a mapping
        return Trained(model.to(memory_format=torch.contiguous_format).eval(), key, float(file.metadata()["seconds"]))


def as_tensor(inputs: np.ndarray[Any, Any]) -> torch.Tensor:
    """Return inputs as the classifier takes them: pixels as numbers in 0..1, others as they are."""
    tensor = torch.from_numpy(np.ascontiguousarray(inputs))
    return tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor


def _train(model: nn.Module, rows: Rows, training: Training) -> None:
    is_pixels = rows.inputs.dtype == np.uint8
    if is_pixels:
        model.to(memory_format=torch.channels_last)
    inputs, classes = torch.from_numpy(np.ascontiguousarray(rows.inputs)), torch.from_numpy(rows.classes)
    optimizer = OPTIMIZERS[training.optimizer](model.parameters(), training.rate, training.decay)
    steps = training.epochs * -(-len(rows) // training.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.rate, total_steps=steps, pct_start=0.2)
    model.train()
    for _ in range(training.epochs):
        for part in torch.randperm(len(rows)).split(training.batch):
            batch = as_tensor(inputs[part].numpy())
            if training.augment:
                batch = _augmented(batch)
            if is_pixels:
                batch = batch.contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), classes[part]).backward()
            optimizer.step()
            schedule.step()


def _augmented(images: torch.Tensor) -> torch.Tensor:
    """Mirror half of the pictures, and move each by up to four pixels; what comes into sight is black."""
    count, _, height, width = images.shape
    flipped = torch.where(torch.rand(count, 1, 1, 1) < 0.5, images.flip(3), images)
    padded = nn.functional.pad(flipped, (CROP, CROP, CROP, CROP))
    corners = torch.randint(0, 2 * CROP + 1, (count, 2)).tolist()
    return torch.stack([
        one[:, row : row + height, column : column + width]
        for one, (row, column) in zip(padded, corners, strict=True)
    ])  # fmt: skip


def _key(model: nn.Module, rows: Rows, training: Training, seed: int) -> str:
    source = inspect.getsource(sys.modules[type(model).__module__])
    parts = (source, repr(model), repr(asdict(training)), str(seed), rows.digest)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
