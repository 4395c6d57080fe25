"""torch.nn.Module -> classifier.onnx, by torch's dynamo exporter; weights are loaded without unpickling."""

import importlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradscore.errors import GradscoreError, InputError, ModelError
from gradscore.metadata import CLASS_NAMES_KEY
from gradscore.writing import refuse_existing, replacing

if TYPE_CHECKING:
    import torch

_OPSET = 18
_NESTED_KEYS = ("state_dict", "model_state_dict")


def export_classifier(
    module: "torch.nn.Module",
    example: "torch.Tensor",
    path: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Export a torch classifier to one ONNX file: eval mode, dynamic batch, weights inside.

    Parameters
    ----------
    module
        Returns logits (or a softmax of them) of shape [B, classes]. Its training mode is put back afterwards.
    example
        An input with its batch dimension; its values do not matter.
    class_names
        Stored in the file, where `prepare` finds them.

    Raises
    ------
    ModelError
        torch's exporter cannot trace the module.
    OutputExistsError
        `path` exists and `overwrite` is False.
    """
    torch = _load_torch()
    target = Path(path)
    refuse_existing(target, overwrite=overwrite)
    batch = example if len(example) > 1 else torch.cat([example, example])  # one sample would be exported as a constant
    training = module.training
    module.eval()
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr), _quiet_exporter():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            program = torch.onnx.export(
                module, (batch,), dynamo=True, opset_version=_OPSET, verbose=False,
                dynamic_shapes=({0: torch.export.Dim("batch")},), input_names=["input"], output_names=["logits"],
            )  # fmt: skip
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise ModelError(f"torch cannot export {type(module).__name__}: {_first_line(error)}") from error
    finally:
        module.train(training)
    if class_names is not None:
        program.model.metadata_props[CLASS_NAMES_KEY] = json.dumps(list(class_names))
    with replacing(target, overwrite=overwrite) as part:
        program.save(part, external_data=False)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hush the exporter's notes on packages that are not installed and that nobody asked for."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def load_module(factory: str, weights: str | os.PathLike[str] | None = None) -> "torch.nn.Module":
    """Return `factory()` for "package.module:factory", with a state dict loaded into it.

    The module's own code runs, so name only code that you trust; the weights file cannot run anything (safetensors, or
    torch's format read with `weights_only=True`).

    Raises
    ------
    InputError
        The factory or the weights cannot be found or do not fit together.
    """
    torch = _load_torch()
    module = _call(factory)
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"{factory} returned {type(module).__name__}, not a torch.nn.Module")
    if weights is not None:
        state = _state_dict(Path(weights))
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(f"the weights in {weights} do not fit {factory}: {' '.join(str(error).split())[:300]}") from error
    return module


def _call(factory: str) -> Any:  # noqa: ANN401 - whatever the user's factory returns
    name, separator, attribute = factory.partition(":")
    if not separator:
        raise InputError(f"{factory!r} does not name a factory: write package.module:factory")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as `python -m` does
    try:
        return getattr(importlib.import_module(name), attribute)()
    except ModuleNotFoundError as error:
        raise InputError(f"cannot import {name!r} ({error}): is it installed, or in the current folder?") from error
    except AttributeError as error:
        raise InputError(f"{name} has no {attribute!r}, or it failed: {error}") from error
    finally:
        sys.path.pop(0)


def _state_dict(path: Path) -> Mapping[str, Any]:
    torch = _load_torch()
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # noqa: PLC0415 - an extra

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors errors share no base
        raise InputError(
            f"cannot load weights from {path} without unpickling ({_first_line(error)}): save a plain state dict, "
            "`torch.save(module.state_dict(), path)`, or safetensors"
        ) from error
    for key in _NESTED_KEYS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise InputError(f"{path} holds {type(state).__name__}, not a state dict")
    return state


def _load_torch() -> Any:  # noqa: ANN401 - the module, loaded only by those who export
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise GradscoreError('torch is not installed: run `pip install "gradscore[export]"`') from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
