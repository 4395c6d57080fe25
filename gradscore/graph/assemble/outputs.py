"""Pass 6a: keep the classifier's own outputs beside the signals, for the self-scoring form.

Requires: the normalised classifier before it was cut at its logits, and the scoring graph made of it, whose forward values
bear the same names. Ensures: every output of the classifier is a value of the scoring graph, under its own name. What stands
between the logits and an output, or leads elsewhere, is copied; a session that does not ask for it does not run it.
"""

import onnx_ir as ir

from gradscore.graph.differentiate.gradient import values_of


def keep_outputs(scoring: ir.Graph, classifier: ir.Graph) -> tuple[ir.Value, ...]:
    """Return the classifier's computed outputs as values of the scoring graph, copying the nodes and weights that it lacks."""
    known = values_of(scoring)
    for node in _missing(classifier, known):
        for value in node.inputs:
            if value is not None and str(value.name) not in known:
                known[str(value.name)] = _copied_weight(scoring, value)
        copies = [ir.Value(name=value.name, shape=value.shape, type=value.type) for value in node.outputs]
        scoring.append(
            ir.Node(
                "",
                node.op_type,
                [None if value is None else known[str(value.name)] for value in node.inputs],
                list(node.attributes.values()),
                outputs=copies,
                name=node.name,
            )
        )
        known.update({str(value.name): value for value in copies})
    return tuple(known[str(value.name)] for value in classifier.outputs if value.producer() is not None)


def _missing(classifier: ir.Graph, known: dict[str, ir.Value]) -> list[ir.Node]:
    """Return the nodes behind the outputs that the scoring graph lacks, each after those it reads."""
    wanted: set[ir.Node] = set()
    waiting = [value for value in classifier.outputs if str(value.name) not in known]
    while waiting:
        node = waiting.pop().producer()
        if node is None or node in wanted:
            continue
        wanted.add(node)
        waiting.extend(value for value in node.inputs if value is not None and str(value.name) not in known)
    return [node for node in classifier if node in wanted]


def _copied_weight(scoring: ir.Graph, value: ir.Value) -> ir.Value:
    weight = ir.Value(name=value.name, shape=value.shape, type=value.type, const_value=value.const_value)
    scoring.register_initializer(weight)
    return weight
