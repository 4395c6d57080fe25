"""Drawn predictions for the detectors' tests, and a session that runs their nodes."""

from dataclasses import dataclass

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from gradscore.detectors import DETECTORS, Detector, LastLayer, Observations
from gradscore.detectors.nodes import IR_VERSION, OPSET, Nodes

LAYERS = {"conv1": 6, "fc1": 3}


@dataclass(frozen=True)
class World:
    """Known predictions, new ones, and the layer that made both."""

    known: Observations
    new: Observations
    head: LastLayer


def world(seed, *, known=150, new=12, classes=5, width=9, without=(), constant=(), relu=True):
    """Draw a world; no known row has a class of `without`, and the numbers `constant` are 1 in all known rows."""
    rng = np.random.default_rng(seed)
    means = 2 * rng.standard_normal((classes, width))
    head = LastLayer(0.4 * means + 0.1 * rng.standard_normal(means.shape), 0.1 * rng.standard_normal(classes))
    mixing = {name: rng.standard_normal((width, channels)) for name, channels in LAYERS.items()}

    def predictions(rows, spread):
        vector = means[rng.integers(0, classes, rows)] + spread * rng.standard_normal((rows, width))
        vector = np.maximum(vector, 0) if relu else vector
        if spread == 1:
            vector[:, list(constant)] = 1
        logits = vector @ head.weight.T + head.bias
        pooled = {name: vector @ one + rng.standard_normal((rows, LAYERS[name])) for name, one in mixing.items()}
        return Observations(logits, logits.argmax(axis=1), vector, pooled)

    seen = predictions(known, 1)
    return World(seen.rows(~np.isin(seen.label, without)), predictions(new, 2), head)


def by_nodes(detector: Detector, drawn: World, batch: Observations, reference):
    """Return the confidence that onnxruntime computes from a detector's nodes."""
    emit = Nodes()
    given = {"logits": batch.logits, "label": batch.label, "vector": batch.vector}
    given |= {f"pooled/{name}": one for name, one in batch.pooled.items()}
    result = detector.emit(emit, {name: name for name in given}, batch.classes, drawn.head, reference)
    inputs = {
        name: (TensorProto.INT64 if name == "label" else TensorProto.DOUBLE, ["N", *one.shape[1:]])
        for name, one in given.items()
    }
    graph = emit.graph_of("detector", inputs, {"confidence": result})
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    read = {one.name for one in session.get_inputs()}
    return session.run(None, {name: one for name, one in given.items() if name in read})[0]


def all_learned(drawn: World):
    """Return {name: (detector, its reference)} of all detectors."""
    return {name: (one, one.reference(drawn.known, drawn.head)) for name, one in DETECTORS.items()}
