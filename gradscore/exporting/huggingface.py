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
from gradscore.model.preprocessing import ImageOptions

if TYPE_CHECKING:
    import torch

_TOKENS = 16  # an example's length; the exported model takes any
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic")  # Pillow's numbers
_WARPED = 384  # from this side on, processors with a `crop_pct` stretch instead of cropping


@dataclass(frozen=True)
class Checkpoint:
    """What a directory holds, ready for export."""

    module: "torch.nn.Module"
    example: dict[str, "torch.Tensor"]
    free_axes: tuple[int, ...]
    class_names: tuple[str, ...] | None
    preprocessing: ImageOptions


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
    unique = names if len(set(names)) == len(names) else None
    return Checkpoint(_logits_only(model), example, free_axes, unique, _preprocessing(_processor(folder)))


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
    processor = _processor(folder)
    size = processor.get("crop_size" if processor.get("do_center_crop") else "size", {})
    return size if isinstance(size, int) else _edges(size) if "height" in size else size.get("shortest_edge", 224)


def _processor(folder: Path) -> dict[str, Any]:
    path = folder / "preprocessor_config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is no JSON object")
    return found


def _preprocessing(processor: dict[str, Any]) -> ImageOptions:
    """Read what an image processor's configuration says; where it is silent, its class's own defaults are not known."""
    options: dict[str, Any] = {"scale": processor.get("rescale_factor") if processor.get("do_rescale", True) else 1.0}
    if processor.get("do_normalize", True):
        options |= {"mean": processor.get("image_mean"), "std": processor.get("image_std")}
    if processor.get("do_resize", True) and "size" in processor:
        options["resize"] = _resize(processor)
    if processor.get("do_center_crop") or len(options.get("resize", ())) == 1:
        options["crop"] = "center"
    if (code := processor.get("resample")) is not None:
        if code not in range(len(_RESAMPLE)):
            raise InputError(
                f"images would be resized by Pillow's filter {code}: only {', '.join(_RESAMPLE)} are known"
            )
        options["interpolation"] = _RESAMPLE[code]
    return ImageOptions().changed(**options)


def _resize(processor: dict[str, Any]) -> tuple[int, ...]:
    size = processor["size"]
    if isinstance(size, int):
        return (size,) if processor.get("do_center_crop") else (size, size)
    if "height" in size:
        return _edges(size)
    if "shortest_edge" not in size:
        return ()
    side = int(size["shortest_edge"])
    if "crop_pct" in processor:
        return (int(side / processor["crop_pct"]),) if side < _WARPED else (side, side)
    return (side,)


def _edges(size: dict[str, Any]) -> tuple[int, int]:
    return int(size["height"]), int(size["width"])


def _logits_only(model: Any) -> "torch.nn.Module":
    """Let the model itself return its logits alone, its parameters keeping their names."""
    whole = model.forward

    @functools.wraps(whole)
    def forward(*inputs: Any, **named: Any) -> Any:
        return whole(*inputs, **named).logits

    model.forward = forward
    return model  # type: ignore[no-any-return]  # transformers' classes are torch modules
