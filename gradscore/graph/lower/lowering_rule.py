"""What a lowering rule is."""

from abc import ABC, abstractmethod

import onnx_ir as ir

from gradscore.graph.nodes.emitter import Emitter, dtype_of


class LoweringRule(ABC):
    """Rewrites one training-only operator; the docstring of each shows the algebra."""

    op_type: str

    @abstractmethod
    def lower(self, node: ir.Node, emit: Emitter) -> ir.Value:
        """Emit the standard operators and return what replaces the node's first output."""


def scalar(emit: Emitter, number: float, like: ir.Value | None) -> ir.Value:
    """Return a number of the type of `like`."""
    return emit.constant(number, dtype_of(like))
