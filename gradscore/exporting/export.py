"""torch.nn.Module -> classifier.onnx, by either of torch's exporters; weights are loaded without unpickling."""

import importlib
import io
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradscore.errors import GradscoreError, InputError, ModelError
from gradscore.exporting.torch_exporters import EXPORTERS, Exporter
from gradscore.files.writing import refuse_existing, replacing
from gradscore.model.metadata import CLASS_NAMES_KEY
from gradscore.model.preprocessing import PREPROCESSING_KEY, ImageOptions

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

_NESTED_KEYS = ("state_dict", "model_state_dict")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def export_classifier(
    module: "torch.nn.Module",
    example: "torch.Tensor | Mapping[str, torch.Tensor]",
    path: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    preprocessing: ImageOptions | None = None,
    free_axes: Sequence[int] = (),
    fold_batch_norm: bool = False,
    exporter: str = "dynamo",
    overwrite: bool = False,
) -> None:
    """Export a torch classifier to one ONNX file: eval mode, dynamic batch, weights inside (beside it beyond 2 GB).

    Parameters
    ----------
    module
        Returns logits (or a softmax of them) of shape [B, classes]. Training modes are put back afterwards.
    example
        An input with its batch dimension, or several by the names of the module's arguments; the values do not matter.
    class_names
        Stored in the file, where `prepare` finds them.
    preprocessing
        How images become the model's input; stored as well.
    free_axes
        Axes beside the batch that may vary, such as 1 for the length of a text.
    fold_batch_norm
        Merge batch normalisations into the convolutions before them: a faster model, whose gradients are those of the
        merged weights. By default they stay layers of their own, as they were trained.
    exporter
        "dynamo", torch's own; or "torchscript", its older one, for modules that dynamo cannot capture. It traces the
        module on the example, so a branch that depends on values is fixed as the example takes it.

    Raises
    ------
    ModelError
        torch's exporter cannot trace the module.
    InputError
        Class names repeat, there is no such exporter, or `example` has no batch dimension.
    OutputExistsError
        `path` exists and `overwrite` is False.
    GradscoreError
        torch or onnxscript is not installed, or `path` cannot be written.
    """
    target = Path(path)
    refuse_existing(target, overwrite=overwrite)
    inputs = dict(example) if isinstance(example, Mapping) else {"input": example}
    for tensor in inputs.values():
        if tensor.ndim < 2 or not len(tensor):
            raise InputError(f"the example has shape {list(tensor.shape)}: give a batch of at least one input")
    if class_names is not None and len(set(class_names)) != len(class_names):
        raise InputError("class names repeat: each class needs a name of its own")
    if exporter not in EXPORTERS:
        raise InputError(f"there is no exporter {exporter!r}: --exporter takes {', '.join(EXPORTERS)}")
    with _evaluating(module), _quietly():
        model = _exported(
            EXPORTERS[exporter], module, inputs, free_axes, by_name=isinstance(example, Mapping), fold=fold_batch_norm
        )
    if class_names is not None:
        model.metadata_props[CLASS_NAMES_KEY] = json.dumps(list(class_names))
    if preprocessing is not None:
        model.metadata_props[PREPROCESSING_KEY] = preprocessing.to_json()
    _save(model, target, overwrite=overwrite)


def _save(model: "ir.Model", target: Path, *, overwrite: bool) -> None:
    from gradscore.graph.nodes.beside import weights_beside  # noqa: PLC0415 - onnx, which `--help` need not load
    from gradscore.graph.nodes.storing import write_model  # noqa: PLC0415

    with weights_beside(model, target, wanted=False) as weights, replacing(target, overwrite=overwrite) as part:
        write_model(model, part, None if weights is None else weights.name)


def _exported(
    export: Exporter, module: "torch.nn.Module", inputs: Mapping[str, "torch.Tensor"], free_axes: Sequence[int],
    *, by_name: bool, fold: bool,
) -> "ir.Model":  # fmt: skip
    torch = _load_torch()
    # One sample would be exported as a constant: the example holds two.
    batches = {name: one if len(one) > 1 else torch.cat([one, one]) for name, one in inputs.items()}
    try:
        return export(module, batches, free_axes, by_name, fold)
    except ImportError as error:
        raise GradscoreError(f'{error}: run `pip install "gradscore[export]"`') from error
    except Exception as error:  # the module's own code runs in there
        others = " or ".join(name for name, other in EXPORTERS.items() if other is not export)
        raise ModelError(
            f"torch cannot export {type(module).__name__}: {_reason(error)}; --exporter {others} may do it"
        ) from error


@contextmanager
def _evaluating(module: "torch.nn.Module") -> Iterator[None]:
    """Put the module in eval mode, and afterwards each submodule back into the mode it had."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def _quietly() -> Iterator[None]:
    """Hush the exporter, which prints graphs and logs tracebacks before it raises; the error says it in a line."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def load_module(factory: str, weights: str | os.PathLike[str] | None = None) -> "torch.nn.Module":
    """Return `factory()` for "package.module:factory", with a state dict loaded into it.

    The module's own code runs, so name only code that you trust; the weights file cannot run anything (safetensors, or
    torch's format read with `weights_only=True`).

    Raises
    ------
    InputError
        The factory or the weights cannot be found or do not fit together.
    """
    base = _load_torch().nn.Module
    made = _factory(factory)()
    if not isinstance(made, base):
        raise InputError(f"{factory} returned {type(made).__name__}, not a torch.nn.Module")
    module: torch.nn.Module = made
    if weights is not None:
        state = _state_dict(Path(weights))
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(
                f"the weights in {weights} do not fit {factory}: {' '.join(str(error).split())[:300]}"
            ) from error
    return module


def _factory(text: str) -> Callable[[], Any]:
    """Return what "package.module:factory" names; calling it raises nothing but InputError."""
    name, separator, attribute = text.partition(":")
    if not (name and separator and attribute):
        raise InputError(f"{text!r} does not name a factory: write package.module:factory")
    try:
        factory = getattr(_imported(name), attribute)
    except AttributeError as error:
        raise InputError(f"{name} has no {attribute!r}: write package.module:factory") from error

    def build() -> Any:
        try:
            return factory()
        except Exception as error:  # the user's own code
            raise InputError(f"{text} failed when called without arguments: {_reason(error)}") from error

    return build


def _imported(name: str) -> ModuleType:
    folder = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    sys.path.insert(0, folder)  # as `python -m` does
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"cannot import {name!r} ({error}): is it installed, or in the current folder?") from error
    except Exception as error:  # the user's own code
        raise InputError(f"cannot import {name!r}: {_reason(error)}") from error
    finally:
        sys.path.remove(folder)


def _state_dict(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    state = _load_safetensors(path) if path.suffix == ".safetensors" else _load_tensors(path)
    for key in _NESTED_KEYS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise InputError(f"{path} holds {type(state).__name__}, not a state dict")
    return state


def _load_safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise GradscoreError('safetensors is not installed: run `pip install "gradscore[export]"`') from error
    try:
        return load_file(path)
    except Exception as error:  # SafetensorError has no base of its own
        raise InputError(f"{path} is not a safetensors file: {_reason(error)}") from error


def _load_tensors(path: Path) -> Any:
    try:
        return _load_torch().load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch errors share no base
        raise InputError(
            f"cannot load weights from {path} without unpickling ({_reason(error)}): save a plain state dict, "
            "`torch.save(module.state_dict(), path)`, or safetensors"
        ) from error


def _load_torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise GradscoreError('torch is not installed: run `pip install "gradscore[export]"`') from error


def _reason(error: BaseException) -> str:
    """Return the first line of an error, or of what caused it where torch only wraps that; without colours."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
    return (f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)[:300]
