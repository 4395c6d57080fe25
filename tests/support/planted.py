"""Planted rows: features as a scoring model gives them, of which the tests know what tells the outcome."""

from dataclasses import replace

import numpy as np

from gradscore.model.metadata import LAYER_STATISTICS
from gradscore.verdict.learning.rows import KNOWN, LabelledRows

HEAD = ("entropy", "max_softmax", "residual")
OLD_NAMES = (*(f"{layer}.{one}" for layer in ("conv", "fc", "all") for one in LAYER_STATISTICS), *HEAD)
POOLED = {"conv": 6, "fc": 4}
NEW_NAMES = (
    *OLD_NAMES,
    *(f"{layer}.activation.{one}" for layer in ("conv", "fc") for one in LAYER_STATISTICS),
    *(f"{layer}.pooled.{i}" for layer, width in POOLED.items() for i in range(width)),
)


def rows(known=400, kinds=4, each=40, *, names=NEW_NAMES, seed=0, wrong=None, classes=4, far=2.0, noise=0):
    """Return rows in which the residual tells the wrong ones, and every other feature unknown inputs, `far` away.

    `wrong` known inputs are wrong, by default a fifth. `noise` columns of noise are added.
    """
    rng = np.random.default_rng(seed)
    count = known + kinds * each
    kind = np.r_[np.full(known, KNOWN), np.repeat(np.arange(kinds), each)]
    label = rng.integers(0, classes, count)
    wrongs = known // 5 if wrong is None else wrong
    right = kind == KNOWN
    right[rng.permutation(known)[:wrongs]] = False
    names = (*names, *(f"noise.{i}" for i in range(noise)))
    moved = rng.normal(size=(kinds, len(names))) * far
    moved = np.where(kind[:, None] == KNOWN, 0.0, moved[np.maximum(kind, 0)] if kinds else 0.0)
    hidden = 0.5 * rng.normal(size=(classes, len(names)))[label] + rng.normal(size=(count, len(names))) + moved
    features = np.exp(hidden)
    signed = [i for i, name in enumerate(names) if name.endswith((".mean", ".skewness", ".min"))]
    features[:, signed] = hidden[:, signed]
    odds = rng.normal(size=count) * 2 + np.where(right, 4.0, 1.0)
    residual = 1 / (1 + np.exp(odds))
    own = {"residual": residual, "max_softmax": 1 - residual, "entropy": residual * (1 + 0.3 * rng.random(count))}
    for name, values in own.items():
        features[:, names.index(name)] = values
    for column, name in enumerate(names):
        if name.startswith("noise."):
            features[:, column] = rng.normal(size=count)
    return LabelledRows(features, names, right, kind, label)


def useless(given, seed=1):
    """Return the rows with all features but the logit scores drawn anew, so that they tell nothing."""
    rng = np.random.default_rng(seed)
    features = given.features.copy()
    for column, name in enumerate(given.names):
        if name not in HEAD:
            features[:, column] = rng.lognormal(size=len(given))
    return replace(given, features=features)


def shuffled(given, seed=2):
    """Return the rows with outcomes, kinds and classes dealt to other features."""
    order = np.random.default_rng(seed).permutation(len(given))
    return replace(given, right=given.right[order], kind=given.kind[order], label=given.label[order])


def extremes(count, width, seed=3):
    """Return rows far outside those of any fit, in the range of single precision, which scores are computed in."""
    values = [0.0, -0.0, 1e-300, 1e-40, -1e-30, 1e-12, 0.5, 1.0, -1e10, 1e30, -3e38, 3e38]
    rng = np.random.default_rng(seed)
    return np.vstack([np.tile(np.array(values)[:, None], width), rng.choice(values, size=(count, width))])


def run(emit_into, given, outputs=1):
    """Run what `emit_into(emit, input name)` writes on an array [N, K], in onnxruntime, and return its arrays."""
    from onnx import TensorProto, helper

    from gradscore.runtime.session import open_session
    from gradscore.verdict.learning.verdict_nodes import INPUT, IR_VERSION, OPSET, VerdictNodes

    emit = VerdictNodes()
    made = emit_into(emit, INPUT)
    made = (made,) if isinstance(made, str) else tuple(made)
    flat = made[0] if made[0] != INPUT else emit("Identity", INPUT)
    graph = emit.graph((flat, flat, flat), given.shape[1])
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in made)
    kept = [node for node in graph.node if not set(node.output) & {"p_correct", "p_right", "p_known"}]
    del graph.node[:]
    graph.node.extend(kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    found = open_session(model.SerializeToString()).run(list(made), {INPUT: np.asarray(given, dtype=np.float64)})
    return found[0] if len(found) == 1 else found
