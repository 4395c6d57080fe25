"""A Hugging Face `transformers` directory -> the torch module, example and class names that `export_classifier` takes.

Nothing is downloaded and no code of the directory runs; weights are read from safetensors.
"""

import functools
import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradscore.errors import GradscoreError, InputError

if TYPE_CHECKING:
    import torch

_TOKENS = 16  # an example's length; the exported model takes any


@dataclass(frozen=True)
class Checkpoint:
    """What a directory holds, ready for export."""

    module: "torch.nn.Module"
    example: dict[str, "torch.Tensor"]
    free_axes: tuple[int, ...]
    class_names: tuple[str, ...] | None


def is_checkpoint(path: str | Path) -> bool:
    """Tell whether a path is a directory with a `transformers` configuration."""
    return (Path(path) / "config.json").is_file()


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Load an image or sequence classifier from a local directory.

    Raises
    ------
    InputError
        The directory holds no classifier, or none that loads from safetensors.
    GradscoreError
        transformers is not installed.
    """
    folder = Path(path)
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise GradscoreError("transformers is not installed: run `pip install transformers`") from error
    name = _architecture(folder)
    if not hasattr(transformers, name):
        raise InputError(
            f"{folder} is of architecture {name}, which the installed transformers {transformers.__version__} lacks"
        )
    try:
        model = getattr(transformers, name).from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"cannot load {folder} from safetensors ({reason}): save it with `model.save_pretrained(path)`"
        ) from error
    config = model.config
    names = tuple(str(config.id2label[label]) for label in range(config.num_labels))
    example, free_axes = _example(config, name, folder)
    return Checkpoint(_logits_only(model), example, free_axes, names if len(set(names)) == len(names) else None)


def _architecture(folder: Path) -> str:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        name = str(config["architectures"][0])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(
            f"{folder}/config.json names no architecture ({error}): save the model with `save_pretrained`"
        ) from error
    if not name.endswith(("ForImageClassification", "ForSequenceClassification")):
        raise InputError(f"{folder} holds {name}: only image and sequence classifiers can be scored")
    return name


def _example(config: Any, name: str, folder: Path) -> tuple[dict[str, "torch.Tensor"], tuple[int, ...]]:
    torch = importlib.import_module("torch")
    if name.endswith("ForSequenceClassification"):
        ones = torch.ones(2, _TOKENS, dtype=torch.int64)
        return {"input_ids": ones, "attention_mask": ones.clone()}, (1,)
    size = getattr(config, "image_size", None) or _processor_size(folder)
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    return {"pixel_values": torch.zeros(2, getattr(config, "num_channels", 3), height, width)}, ()


def _processor_size(folder: Path) -> Any:
    """Read the image size from the preprocessor's configuration, for architectures that take any; 224 where it is silent."""
    path = folder / "preprocessor_config.json"
    size = json.loads(path.read_text(encoding="utf-8")).get("size", {}) if path.is_file() else {}
    if isinstance(size, int):
        return size
    return (size["height"], size["width"]) if "height" in size else size.get("shortest_edge", 224)


def _logits_only(model: Any) -> "torch.nn.Module":
    """Let the model itself return its logits alone, its parameters keeping their names."""
    whole = model.forward

    @functools.wraps(whole)
    def forward(*inputs: Any, **named: Any) -> Any:
        return whole(*inputs, **named).logits

    model.forward = forward
    return model  # type: ignore[no-any-return]  # transformers' classes are torch modules
