"""Pass 7: prove a scoring model before it gets its name.

Requires: a finished scoring model in a file. Ensures: standard operators only, valid by the ONNX checker, and that the
runtime gives the classifier's own outputs, the same rows at batch sizes 1 and 3, and one row of every signal a sample.
"""

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from gradscore.errors import ModelError
from gradscore.graph.lower.lowering import is_standard
from gradscore.graph.nodes.probing import random_input
from gradscore.graph.nodes.running import run_graph
from gradscore.graph.normalize.head import Head
from gradscore.model.metadata import InputTensor, ModelMetadata
from gradscore.runtime.session import SignalSession

_RTOL = 1e-3
_HALF_RTOL = 2e-2  # the classifier's own rounding, layer by layer
_NOISE = 1e-2
# One model in some thousands stands so near to a kink at an input that rounding decides on which side: a sign or a maximum
# flips between batch sizes, and a gradient with it. What is wrong with a model is wrong at every input.
DRAWS = 3
Values = Mapping[str, NDArray[Any]]


class _DifferenceError(ModelError):
    """Numbers that should be the same are not, at one input."""


def check_outputs(model: ir.Model, source: Path, head: Head, metadata: ModelMetadata) -> tuple[int, Values]:
    """Compare a scoring model with the classifier in a file and with itself.

    Returns at which draw of inputs they agree, and the signals of one sample there.

    Raises
    ------
    ModelError
        It does not run, or not as it should, at any of some inputs.
    """
    for draw in range(DRAWS - 1):
        try:
            return draw, _signals(model, source, head, metadata, draw)
        except _DifferenceError:
            continue
    return DRAWS - 1, _signals(model, source, head, metadata, DRAWS - 1)


def _classifier_outputs(path: Path, inputs: tuple[InputTensor, ...], draw: int) -> Values:
    """Return what the classifier itself says of the test inputs: three, or one where it takes no more."""
    session = SignalSession(path, optimize=False)  # the runtime may fuse quantised layers into coarser ones
    for size in (3, 1):  # a batch fixed at one is common
        try:
            return session.run(_batch(inputs, size, draw))
        except Exception as error:  # onnxruntime raises many types of its own
            reason = str(error).strip().splitlines()[0][:300]
    raise ModelError(f"the classifier itself does not run ({reason}): export it again")


def _signals(model: ir.Model, source: Path, head: Head, metadata: ModelMetadata, draw: int) -> Values:
    """Return the signals of one sample, the first of a draw's input."""
    expected = _classifier_outputs(source, metadata.inputs, draw)
    foreign = [node for node in model.graph if not is_standard(node)]
    if foreign:
        raise ModelError(
            f"node {foreign[0].name!r} ({foreign[0].op_type}) is not standard ONNX: please report this model"
        )
    names = [str(value.name) for value in model.graph.outputs]
    batches = [_batch(metadata.inputs, size, draw) for size in ((1,) if metadata.one_at_a_time else (1, 3))]
    try:
        runs = [dict(zip(names, values, strict=True)) for values in run_graph(model, names, batches)]
    except Exception as error:  # onnxruntime raises many types of its own
        raise ModelError(
            f"the scoring model does not run at batch sizes 1 and 3 ({str(error).splitlines()[0][:300]}): please report it"
        ) from error
    shown = NORMALISERS[head.normaliser](runs[-1][metadata.logits].astype(np.float64))
    rows = min(len(expected[head.output]), len(shown))
    _compare("output", shown[:rows].reshape(expected[head.output][:rows].shape), expected[head.output][:rows])
    for name in metadata.outputs:
        _compare(name, np.atleast_1d(runs[-1][name])[:rows], np.atleast_1d(expected[name])[:rows])
    signals = [{name: run[name] for name in names if name not in metadata.unread_outputs} for run in runs]
    if not metadata.one_at_a_time:
        _check_rows(*({name: run[name] for name in run if name not in metadata.constants} for run in signals))
    return signals[0]


def check_file(path: Path, draw: int, signals: Values, metadata: ModelMetadata) -> None:
    """Check the written file: valid ONNX, and the same signals of a draw once the runtime has loaded and optimised it."""
    gc.collect()
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(
            f"the scoring model is invalid ({str(error).strip().splitlines()[0]}): please report it"
        ) from error
    optimised = SignalSession(path)
    for other in range(draw, draw + DRAWS):
        batch = _batch(metadata.inputs, 1, other)
        if other > draw:
            plain = SignalSession(path, optimize=False).run(batch)
            signals = {name: plain[name] for name in signals}
        loaded = optimised.run(batch)
        try:
            for name, values in signals.items():
                _compare(name, loaded[name], values, _largest(signals))
        except _DifferenceError:
            if other == draw + DRAWS - 1:
                raise
        else:
            return


def _check_rows(single: Values, whole: Values) -> None:
    floor = _largest(single)
    for name, values in whole.items():
        if values.shape[:1] != (3,):
            raise ModelError(
                f"value {name!r} has shape {list(values.shape)} for a batch of 3: the model mixes samples, or flattens the "
                "batch with another dimension"
            )
        _compare(name, single[name], values[:1], floor)


def _batch(inputs: tuple[InputTensor, ...], size: int, draw: int) -> dict[str, NDArray[Any]]:
    return {tensor.name: random_input(tensor.shape, np.dtype(tensor.dtype), size, draw=draw) for tensor in inputs}


def _largest(values: Values) -> float:
    """Return the largest number of all floating-point values: float32 rounding is relative to what was summed up."""
    return max(
        (float(np.max(np.abs(value), initial=0.0)) for value in values.values() if value.dtype.kind == "f"), default=1.0
    )


def _compare(what: str, actual: NDArray[Any], expected: NDArray[Any], floor: float = 0.0) -> None:
    finite = expected[np.isfinite(expected)] if expected.dtype.kind == "f" else expected
    scale = max(float(np.max(np.abs(finite), initial=0.0)), _NOISE * floor) or 1.0
    rtol = _HALF_RTOL if expected.dtype == np.float16 else _RTOL
    if actual.shape != expected.shape or not np.allclose(
        actual, expected, rtol=rtol, atol=rtol * scale, equal_nan=True
    ):
        raise _DifferenceError(
            f"the scoring model's {what!r} differs from the classifier's own, or between batch sizes: please report it"
        )


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


NORMALISERS: Mapping[str | None, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    None: lambda logits: logits,
    "LogSoftmax": lambda logits: np.log(_softmax(logits)),
    "Sigmoid": lambda logits: 1 / (1 + np.exp(-logits[:, 1:])),
    "Softmax": _softmax,
    "logit": lambda logits: logits[:, 1:],
}
