"""Head features in the graph, exact for any confidence, in double precision: what is known from the logits alone.

The same as `gradscore_kernels.softmax_features`, with the operators that ONNX has: of z the logits, e = exp(logsumexp(z of the
others) − z of the label) is the odds against the label, the residual e / (1 + e), the maximum softmax 1 / (1 + e).
"""

from dataclasses import dataclass, fields
from math import log

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.arithmetic import Number
from gradscore.graph.nodes.emitter import Emitter

_SERIES = 1e-4  # below it, log(1 + e) is e − e²/2 + e³/3 to double precision's twelfth digit, and a logarithm is not


@dataclass(frozen=True)
class HeadStatistics:
    """Entropy over log q, maximum softmax and residual, and the extra features of logits; double [B, 1] each."""

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
