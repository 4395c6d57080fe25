"""Passes 4 to 6 in their order: a classifier's layers and gradient become a scoring graph.

Requires: the normalised classifier cut at its logits, its layers, and the same classifier before the cut. Ensures: standard
operators only; the outputs are the logits, the label, every signal that the kernels read, and those of the classifier's own
outputs that the graph can have.
"""

from dataclasses import dataclass

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from gradscore.graph.assemble.outputs import keep_outputs
from gradscore.graph.differentiate.engines import GradientEngine
from gradscore.graph.differentiate.gradient import add_gradient, values_of
from gradscore.graph.layers.discovery import FoundLayer
from gradscore.graph.layers.forms import Scope, Whole
from gradscore.graph.lower.lowering import lower
from gradscore.graph.lower.unpooling import keep_pooled
from gradscore.graph.normalize.dialect import infer_shapes
from gradscore.graph.normalize.head import Head, append_seed
from gradscore.model.layer_table import Backstep, Layer, constant_signals, read_signals
from gradscore.model.metadata import unread_outputs
from gradscore.model.preprocessing import InputTensor


@dataclass(frozen=True)
class ScoringGraph:
    """A scoring model's graph, and what its values mean; the fields are those of `ModelMetadata`."""

    model: ir.Model
    inputs: tuple[InputTensor, ...]
    logits: str
    layers: tuple[Layer, ...]
    backsteps: tuple[Backstep, ...]
    outputs: tuple[str, ...]
    one_at_a_time: bool
    seed: str

    @property
    def constants(self) -> frozenset[str]:
        """Outputs that are the same for every batch, and have no batch axis."""
        return constant_signals(self.backsteps)

    @property
    def unread_outputs(self) -> frozenset[str]:
        """Those of the classifier's own outputs that no feature needs."""
        return unread_outputs(self.outputs, self.logits, read_signals(self.layers, self.backsteps))


def build_scoring_graph(
    model: ir.Model,
    whole: ir.Graph,
    head: Head,
    found: tuple[FoundLayer, ...],
    inputs: tuple[InputTensor, ...],
    engine: GradientEngine,
) -> ScoringGraph:
    """Differentiate the classifier cut at its logits, lower the gradient, seed it, and say what the values mean.

    Parameters
    ----------
    model, whole
        The classifier cut at its logits, which becomes the scoring graph, and before the cut.
    """
    forms = [parameter.form for layer in found for parameter in layer.parameters]
    gradient = add_gradient(model, head.logits, forms, engine)
    scoring, graph = gradient.model, gradient.model.graph
    unpooled, steps = keep_pooled(gradient, forms)
    lower(scoring)
    label, seed = append_seed(graph, gradient.logits, gradient.seed, head.classes)
    graph.inputs.remove(gradient.seed)
    scope = Scope(graph, values_of(graph), gradient.deltas, unpooled)
    layers = tuple(layer.finished(scope) for layer in found)
    backsteps = tuple(step.backstep(scope) for step in steps)
    own, logits = keep_outputs(graph, whole), gradient.logits  # the graph's only output so far
    read = read_signals(layers, backsteps)
    signals = _computed(graph, read)
    graph.outputs.clear()
    graph.outputs.extend(dict.fromkeys([logits, label, *signals, *own]))
    common_passes.RemoveUnusedNodesPass()(scoring)
    common_passes.TopologicalSortPass()(scoring)
    return ScoringGraph(
        model=infer_shapes(scoring),
        inputs=inputs,
        logits=str(head.logits.name),
        layers=layers,
        backsteps=backsteps,
        outputs=tuple(str(value.name) for value in own),
        one_at_a_time=any(isinstance(form, Whole) for form in forms),
        seed=str(seed.name) if seed.name in read else "",
    )


def _computed(graph: ir.Graph, names: tuple[str, ...]) -> list[ir.Value]:
    """Return those of the signals that the graph computes; the model's input is at hand without being an output."""
    values = {value.name: value for node in graph for value in node.outputs}
    return [values[name] for name in names if name in values]
