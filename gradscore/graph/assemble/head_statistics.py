"""Head features in the graph: computed from the logits alone, and exact for any confidence.

The same as `gradscore_kernels.softmax_features`, in ONNX operators and double precision. With logits z, the odds
against the label are e = exp(logsumexp(z of the others) − z of the label). The residual is e / (1 + e), and the maximum
softmax is 1 / (1 + e).
"""

from dataclasses import dataclass, fields
from math import log

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.arithmetic import Number
from gradscore.graph.nodes.emitter import Emitter

_SERIES = 1e-4  # below it, e − e²/2 + e³/3 gives log(1 + e) to twelve digits, and Log does not


@dataclass(frozen=True)
class HeadStatistics:
    """Entropy over log q, maximum softmax, residual, and extra features of logits; each double [B, 1]."""

    entropy: Number
    max_softmax: Number
    residual: Number
    max_logit: Number
    energy: Number
    margin: Number


HEAD_NAMES = tuple(field.name for field in fields(HeadStatistics))


def append_head(graph: ir.Graph, logits: ir.Value, label: ir.Value, classes: int) -> HeadStatistics:
    """Append the head features of logits [B, q] and their predicted labels [B]."""
    emit = Emitter(graph, "head")
    scores = Number(emit("Cast", logits, to=ir.DataType.DOUBLE), emit, np.float64)
    column = emit("Unsqueeze", label, emit.integers(1))
    predicted = emit("Equal", column, emit.constant(np.arange(classes)[None], np.int64))
    never = emit.constant(-np.inf, np.float64)
    others = Number(emit("Where", predicted, never, scores.value), emit, np.float64)
    top = others.largest(1, keepdims=1)
    weights = (others - top).op("Exp")
    whole = weights.total(1, keepdims=1)
    own = scores.op("GatherElements", column, axis=1)
    odds_log = top + whole.op("Log") - own
    odds = odds_log.op("Exp")
    log_sum = _log_one_plus(odds)
    residual, max_softmax = odds / (odds + 1.0), (odds + 1.0).op("Reciprocal")
    unit = weights / whole
    unit_entropy = -_plogp(unit).total(1, keepdims=1)
    entropy = max_softmax * log_sum + residual * (log_sum - odds_log + unit_entropy)
    return HeadStatistics(entropy / log(classes), max_softmax, residual, own, own + log_sum, own - top)


def _log_one_plus(value: Number) -> Number:
    series = value * ((value * (value * (1 / 3) - 0.5)) + 1.0)
    is_small = value.op("Less", _SERIES)
    return Number(
        value.emit("Where", is_small.value, series.value, (value + 1.0).op("Log").value), value.emit, value.dtype
    )


def _plogp(share: Number) -> Number:
    """p·log p, 0 at p = 0."""
    safe = share.op("Max", np.finfo(np.float64).tiny)
    return share * safe.op("Log")
