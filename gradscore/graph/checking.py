"""Pass 7: check a scoring model before its file gets its final name.

Requires: a finished scoring model, then its file. Ensures: all operators are standard; the ONNX checker accepts the
file; the runtime gives the classifier's own outputs, the same rows at batch sizes 1 and 3, and one row of every signal
per sample.
"""

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from gradscore.errors import ModelError
from gradscore.graph.assemble.scoring_graph import ScoringGraph
from gradscore.graph.lower.lowering import is_standard
from gradscore.graph.nodes.probing import random_input
from gradscore.graph.nodes.running import run_graph
from gradscore.graph.normalize.head import Head
from gradscore.model.preprocessing import InputTensor
from gradscore.runtime.session import SignalSession

_RTOL = 1e-3
_HALF_RTOL = 2e-2  # the classifier's own rounding, layer by layer
_NOISE = 1e-2
# For one model in some thousands, a random input lies so near to a kink that rounding decides the side: a sign or a
# maximum flips between batch sizes, and with it a gradient. A model that is wrong is wrong at every input.
DRAWS = 3
Values = Mapping[str, NDArray[Any]]


class _DifferenceError(ModelError):
    """Numbers that should be equal differ at one random input."""


def check_outputs(scoring: ScoringGraph, source: Path, head: Head) -> tuple[int, Values]:
    """Compare a scoring model with the classifier's file, and with itself at another batch size.

    Returns the draw of random inputs at which they agree, and the signals of one sample of it.

    Raises
    ------
    ModelError
        The scoring model does not run, or differs at each of `DRAWS` random inputs.
    """
    for draw in range(DRAWS - 1):
        try:
            return draw, _signals(scoring, source, head, draw)
        except _DifferenceError:
            continue
    return DRAWS - 1, _signals(scoring, source, head, DRAWS - 1)


def _classifier_outputs(path: Path, inputs: tuple[InputTensor, ...], draw: int) -> Values:
    """Return the classifier's own outputs for three samples, or for one if it takes no more."""
    session = SignalSession(path, optimize=False)  # the runtime may fuse quantised layers into coarser ones
    for size in (3, 1):  # a batch fixed at one is common
        try:
            return session.run(_batch(inputs, size, draw))
        except Exception as error:  # onnxruntime raises many types of its own
            reason = str(error).strip().splitlines()[0][:300]
    raise ModelError(f"the classifier itself does not run ({reason}): export it again")


def _signals(scoring: ScoringGraph, source: Path, head: Head, draw: int) -> Values:
    """Check the outputs at one draw, and return the signals of its first sample."""
    expected = _classifier_outputs(source, scoring.inputs, draw)
    foreign = [node for node in scoring.model.graph if not is_standard(node)]
    if foreign:
        raise ModelError(
            f"node {foreign[0].name!r} ({foreign[0].op_type}) is not standard ONNX: please report this model"
        )
    names = [str(value.name) for value in scoring.model.graph.outputs]
    batches = [_batch(scoring.inputs, size, draw) for size in ((1,) if scoring.one_at_a_time else (1, 3))]
    try:
        runs = [dict(zip(names, values, strict=True)) for values in run_graph(scoring.model, names, batches)]
    except Exception as error:  # onnxruntime raises many types of its own
        raise ModelError(
            f"the scoring model does not run at batch sizes 1 and 3 ({str(error).splitlines()[0][:300]}): please report it"
        ) from error
    shown = NORMALISERS[head.normaliser](runs[-1][scoring.logits].astype(np.float64))
    rows = min(len(expected[head.output]), len(shown))
    _compare("output", shown[:rows].reshape(expected[head.output][:rows].shape), expected[head.output][:rows])
    for name in scoring.outputs:
        _compare(name, np.atleast_1d(runs[-1][name])[:rows], np.atleast_1d(expected[name])[:rows])
    signals = [{name: run[name] for name in names if name not in scoring.unread_outputs} for run in runs]
    if not scoring.one_at_a_time:
        _check_rows(*({name: run[name] for name in run if name not in scoring.constants} for run in signals))
    return signals[0]


def check_file(path: Path, draw: int, signals: Values, inputs: tuple[InputTensor, ...]) -> None:
    """Check the written file: valid ONNX, and the same signals after the runtime has optimised it."""
    gc.collect()
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(
            f"the scoring model is invalid ({str(error).strip().splitlines()[0]}): please report it"
        ) from error
    optimised = SignalSession(path)
    for other in range(draw, draw + DRAWS):
        batch = _batch(inputs, 1, other)
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
                f"value {name!r} has shape {list(values.shape)} for a batch of 3, so the model mixes samples, or flattens the "
                "batch with another dimension: export it with a batch axis of its own"
            )
        _compare(name, single[name], values[:1], floor)


def _batch(inputs: tuple[InputTensor, ...], size: int, draw: int) -> dict[str, NDArray[Any]]:
    return {tensor.name: random_input(tensor.shape, np.dtype(tensor.dtype), size, draw=draw) for tensor in inputs}


def _largest(values: Values) -> float:
    """Return the largest absolute number of all floating-point values: it sets the scale of rounding."""
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
