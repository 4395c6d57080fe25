"""The reductions of the layer table in standard ONNX: one rule per kernel, in `GRADIENT_RULES`.

A rule returns the gradient itself, flat [B, n]; or the two factors of an outer product, whose moments give those of the
product; or the factors of a sum over positions; or, for embeddings, the rows that were looked up.
"""

import numpy as np
import onnx_ir as ir

from gradscore.graph.nodes.emitter import Emitter, dtype_of, extents
from gradscore.graph.statistics.convolutions import ConvGradientRule, UnpooledConvGradientRule
from gradscore.graph.statistics.gradients import (
    Contraction,
    Explicit,
    Gradient,
    GradientRule,
    Product,
    Sparse,
    Values,
    activation_of,
    dense_sizes,
    flat,
    shape_of,
    single,
)
from gradscore.model.layer_table import Parameter, Reduction


class DirectRule(GradientRule):
    """G = δ."""

    kernel = "direct"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        return Explicit(flat(values[reduction.delta], emit), parameter.count)


class WholeRule(GradientRule):
    """G = δ of the batch's only sample."""

    kernel = "whole"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        delta = single(values[reduction.delta], emit)
        return Explicit(emit("Reshape", delta, emit.integers(1, -1)), parameter.count)


class PositionSumRule(GradientRule):
    """G = Σ_t δ_t, channels first."""

    kernel = "position_sum"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        delta = single(values[reduction.delta], emit)
        axes = range(2, len(shape_of(delta, values[reduction.delta])))
        summed = emit("ReduceSum", delta, emit.integers(*axes), keepdims=0) if axes else delta
        return Explicit(summed, parameter.count)


class SequenceSumRule(GradientRule):
    """G = Σ_t δ_t, channels last."""

    kernel = "sequence_sum"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        delta = single(values[reduction.delta], emit)
        return Explicit(emit("ReduceSum", delta, emit.integers(1), keepdims=0), parameter.count)


class OuterRule(GradientRule):
    """G = δ aᵀ."""

    kernel = "outer"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        inputs, outputs = dense_sizes(reduction, parameter)
        return Product(
            Explicit(flat(values[activation_of(reduction)], emit), inputs),
            Explicit(flat(values[reduction.delta], emit), outputs),
        )


class SequenceRule(GradientRule):
    """G = Σ_t δ_t a_tᵀ; an outer product if there is one position."""

    kernel = "sequence"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        if _is_outer(reduction, values):
            return OuterRule().gradient(reduction, parameter, values, emit)
        source, target = single(values[activation_of(reduction)], emit), single(values[reduction.delta], emit)
        inputs, outputs = dense_sizes(reduction, parameter)
        return Contraction(target, source, (outputs,), inputs, positions=-2)


def _is_outer(reduction: Reduction, values: Values) -> bool:
    """Tell whether a sequence has a single position."""
    shapes = (extents(values[name]) or () for name in (activation_of(reduction), reduction.delta))
    return any(shape[1:2] == (1,) for shape in shapes)


class EmbeddingRule(GradientRule):
    """Row i of G = Σ δ_t over the positions t with id i.

    Positions are compared with one another, and only the first one of an id keeps the sum. This takes T × T numbers,
    whatever the size of the vocabulary.
    """

    kernel = "embedding"

    def gradient(self, reduction: Reduction, parameter: Parameter, values: Values, emit: Emitter) -> Gradient:
        vocabulary = int((reduction.attributes or {})["vocabulary"])
        ids, delta = values[activation_of(reduction)], single(values[reduction.delta], emit)
        zero, size = (emit.constant(number, dtype_of(ids)) for number in (0, vocabulary))
        rows = emit("Where", emit("Less", ids, zero), emit("Add", ids, size), ids)
        across, along = emit("Unsqueeze", rows, emit.integers(2)), emit("Unsqueeze", rows, emit.integers(1))
        same = emit("Cast", emit("Equal", across, along), to=ir.DataType.FLOAT)
        # Row t of the lower triangle without its diagonal tells which earlier positions hold the id of position t.
        earlier = emit("Trilu", same, emit.constant(-1, np.int64), upper=0)
        repeated = emit("ReduceMax", earlier, emit.integers(2), keepdims=1)
        kept = emit("Sub", emit.constant(1, np.float32), repeated)
        return Sparse(emit("MatMul", same, delta), kept, vocabulary, parameter.shape[-1])


GRADIENT_RULES: dict[str, GradientRule] = {
    rule.kernel: rule
    for rule in (
        ConvGradientRule(),
        DirectRule(),
        EmbeddingRule(),
        OuterRule(),
        PositionSumRule(),
        SequenceRule(),
        SequenceSumRule(),
        UnpooledConvGradientRule(),
        WholeRule(),
    )
}
