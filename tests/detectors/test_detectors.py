"""Each detector against its formula in plain Python, a published implementation, and its own nodes in onnxruntime."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import weibull_min
from sklearn.covariance import ledoit_wolf_shrinkage

from gradscore.detectors import DETECTORS, LastLayer, Observations
from gradscore.detectors.covariance import BANK_ROWS, bank_rows, explaining, principal, shrinkage_of, whitening
from gradscore.detectors.detector import WIDEST
from gradscore.detectors.distances import LayersMahalanobis, Mahalanobis, RelativeMahalanobis
from gradscore.detectors.logit_scores import Energy, GeneralisedEntropy
from gradscore.detectors.nodes import Nodes
from gradscore.detectors.openmax import weibull
from gradscore.detectors.shaping import ActivationScale, Dice, ShapingB, ShapingP, ShapingS
from gradscore.detectors.subspaces import VirtualLogit
from gradscore.detectors.traced import Traced
from gradscore.errors import InputError, ModelError
from tests.detectors.drawn import World, all_learned, by_nodes, world
from tests.detectors.plain import FORMULAS
from tools.published_detectors import LAYERS, drawn

WORLDS = {
    "relu": world(3),
    "negative": world(4, relu=False),
    "narrow": world(5, classes=9, width=3),
    "two classes": world(6, classes=2, width=5),
    "lacking": world(7, without=(1, 3)),
    "constant": world(8, constant=(0, 4)),
    "few": world(9, known=7),
    "many": world(10, classes=120, width=20, known=300),  # more classes than GEN's M and OpenMax's revised ones
}
# Covariances with eigenvalues close to 0, which scikit-learn inverts otherwise; a likelihood that is flat at its maximum.
ROUGH = {"few": 1e-6, "constant": 1e-6, "openmax": 1e-6}


def plain_scores(name, drawn_world):
    batch = drawn_world.new
    pooled = [{layer: x[row] for layer, x in batch.pooled.items()} for row in range(len(batch))]
    rows = zip(batch.logits, batch.label, batch.vector, pooled, strict=True)
    with np.errstate(over="ignore"):  # the power of a Weibull distribution, far outside
        return np.array([FORMULAS[name](z, y, a, drawn_world, layers) for z, y, a, layers in rows])


def test_every_detector_has_a_formula_here():
    assert set(FORMULAS) == set(DETECTORS)
    assert all(name == one.name for name, one in DETECTORS.items())
    assert all(one.__class__.__doc__ for one in DETECTORS.values())


@pytest.mark.parametrize("which", [name for name in WORLDS if name != "many"])
@pytest.mark.parametrize("name", DETECTORS)
def test_confidence_equals_the_plain_formula(name, which):
    drawn_world = WORLDS[which]
    detector = DETECTORS[name]
    found = detector.confidence(
        drawn_world.new, drawn_world.head, detector.reference(drawn_world.known, drawn_world.head)
    )
    wanted = plain_scores(name, drawn_world)
    assert found.shape == (len(drawn_world.new),)
    assert np.isfinite(found).all()
    tolerance = max(ROUGH.get(which, 1e-9), ROUGH.get(name, 0))
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("which", WORLDS)
def test_nodes_equal_python(which):
    drawn_world = WORLDS[which]
    for name, (detector, reference) in all_learned(drawn_world).items():
        wanted = detector.confidence(drawn_world.new, drawn_world.head, reference)
        found = by_nodes(detector, drawn_world, drawn_world.new, reference)
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max(), err_msg=name)


def published_cases():
    rows = sum(drawn(RESULTS["seed"])["known_logits"].shape[:1])
    classes = drawn(RESULTS["seed"])["known_logits"].shape[1]
    minus = {name: (DETECTORS[name], lambda x: -x) for name in RESULTS["outlier_scores"] if name in DETECTORS}
    return minus | {
        "max_softmax": (DETECTORS["max_softmax"], lambda x: -(x + 1)),  # ours is p − 1
        "energy_3": (Energy("energy_3", 3.0), lambda x: -x),
        "gen": (DETECTORS["gen"], lambda x: -x / classes),  # theirs is the mean over the classes
        "gen_3": (GeneralisedEntropy("gen_3", most=3), lambda x: -x / 3),
        "openmax": (DETECTORS["openmax"], lambda x: 1 / (1 + np.exp(x))),  # theirs is the probability of "unknown"
        "ash_p": (ShapingP("ash_p", 0.65), lambda x: -x),
        "ash_b": (ShapingB("ash_b", 0.65), lambda x: -x),
        "ash_s": (ShapingS("ash_s", 0.65), lambda x: -x),
        "scale": (ActivationScale("scale", 0.65), lambda x: -x),
        "dice": (Dice("dice", 0.7), lambda x: -x),
        "vim": (VirtualLogit("vim", 6), lambda x: -x),
        # Theirs have the scatter matrix, N times the covariance, and no shrinkage.
        "mahalanobis": (Mahalanobis("mahalanobis", shrinkage=0), lambda x: -x / 2 / rows),
        "mahalanobis_relative": (RelativeMahalanobis("relative", shrinkage=0), lambda x: -x / rows),
        "mahalanobis_layers": (LayersMahalanobis("layers", shrinkage=0), lambda x: -x / 2 / rows),
    }


RESULTS = json.loads((Path(__file__).parent / "published.json").read_text())


@pytest.mark.parametrize("name", [name for name in RESULTS["outlier_scores"] if not name.startswith("passes")])
def test_confidence_equals_pytorch_ood(name):
    features = {key: one.astype(np.float64) for key, one in drawn(RESULTS["seed"]).items()}

    def of(part):
        logits, places = features[f"{part}_logits"], range(len(LAYERS))
        pooled = {f"layer {place}": features[f"{part}_layer_{place}"] for place in places}
        return Observations(logits, logits.argmax(axis=1), features[part], pooled)

    detector, outlier_score = published_cases()[name]
    head = LastLayer(features["weight"], features["bias"])
    found = detector.confidence(of("new"), head, detector.reference(of("known"), head))
    wanted = np.array(RESULTS["outlier_scores"][name])
    np.testing.assert_allclose(outlier_score(found), wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())


def test_the_tails_of_openmax_equal_pytorch_ood():
    logits = drawn(RESULTS["seed"])["known_logits"].astype(np.float64)
    found = DETECTORS["openmax"].reference(Observations(logits, logits.argmax(axis=1)))
    for name, wanted in RESULTS["openmax"].items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5)


@pytest.mark.parametrize("broken", ["logits", "vector", "pooled"])
def test_a_nan_stays_in_its_row(broken):
    drawn_world = WORLDS["relu"]
    parts = {
        "logits": drawn_world.new.logits.copy(),
        "vector": drawn_world.new.vector.copy(),
        "pooled": {name: one.copy() for name, one in drawn_world.new.pooled.items()},
    }
    (parts[broken] if broken != "pooled" else parts["pooled"]["fc1"])[4] = np.nan
    batch = Observations(parts["logits"], drawn_world.new.label, parts["vector"], parts["pooled"])
    hurt = 0
    for name, (detector, reference) in all_learned(drawn_world).items():
        clean = detector.confidence(drawn_world.new, drawn_world.head, reference)
        for found in (
            detector.confidence(batch, drawn_world.head, reference),
            by_nodes(detector, drawn_world, batch, reference),
        ):
            np.testing.assert_allclose(np.delete(found, 4), np.delete(clean, 4), rtol=1e-9, err_msg=name)
            assert np.isnan(found[4]) or found[4] == pytest.approx(clean[4]), name
            hurt += np.isnan(found[4])
    assert hurt >= 2


def test_rows_with_nan_teach_nothing():
    drawn_world = WORLDS["relu"]
    vector = drawn_world.known.vector.copy()
    vector[5] = np.inf
    broken = Observations(drawn_world.known.logits, drawn_world.known.label, vector, drawn_world.known.pooled)
    without = drawn_world.known.rows(np.arange(len(broken)) != 5)
    for name, detector in DETECTORS.items():
        found, wanted = (detector.reference(one, drawn_world.head) for one in (broken, without))
        assert set(found) == set(wanted), name
        assert all(np.array_equal(found[key], wanted[key]) for key in wanted), name


def test_a_confident_prediction_does_not_tie():
    """At p = 1 − 1e-20 and 1 − 1e-30, which both round to 1, these still tell which is more confident."""
    logits = np.array([[46.0, 0.0, 0.0], [69.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    batch = Observations(logits, np.zeros(3, dtype=np.int64), np.ones((3, 2)))
    for name in ("max_softmax", "entropy", "gen", "exgrad"):
        found = DETECTORS[name].confidence(batch)
        assert found[1] > found[0] > found[2], name


def test_a_vector_of_zeros_is_finite():
    drawn_world = WORLDS["relu"]
    vector = np.zeros_like(drawn_world.new.vector)
    logits = np.repeat(drawn_world.head.bias[None], len(vector), axis=0)
    batch = Observations(logits, logits.argmax(axis=1), vector, drawn_world.new.pooled)
    for name, (detector, reference) in all_learned(drawn_world).items():
        found = detector.confidence(batch, drawn_world.head, reference)
        assert np.isfinite(found).all(), name
        np.testing.assert_allclose(by_nodes(detector, drawn_world, batch, reference), found, rtol=1e-9, err_msg=name)


def test_one_known_row_is_enough_and_none_is_an_error():
    drawn_world = WORLDS["relu"]
    one, none = drawn_world.known.rows(slice(1)), drawn_world.known.rows(slice(0))
    for name, detector in DETECTORS.items():
        found = detector.confidence(drawn_world.new, drawn_world.head, detector.reference(one, drawn_world.head))
        assert np.isfinite(found).all(), name
        if detector.has_reference:
            with pytest.raises(InputError, match=r"learns what is usual from known inputs, and there are none"):
                detector.reference(none, drawn_world.head)


def test_a_detector_says_what_it_lacks():
    drawn_world = WORLDS["relu"]
    bare = Observations(drawn_world.new.logits, drawn_world.new.label)
    for name, detector in DETECTORS.items():
        if detector.missing(vector=False, pooled=False):
            with pytest.raises(ModelError, match=f"{name} needs (one dense layer|layers that multiply).*leave it out"):
                detector.confidence(bare, drawn_world.head, {})
        elif not detector.has_reference:
            assert detector.confidence(bare).shape == (len(bare),)
        if detector.has_reference:
            with pytest.raises(InputError, match=f"{name} .*no reference: `gradscore reference MODEL KNOWN_INPUTS"):
                detector.confidence(drawn_world.new, drawn_world.head)
    with pytest.raises(ModelError, match="react needs one dense layer"):
        DETECTORS["react"].reference(drawn_world.known)


def test_a_reference_of_another_model_is_refused():
    drawn_world, other = WORLDS["relu"], world(1, classes=4, width=8)
    for name, (detector, _) in all_learned(drawn_world).items():
        if detector.has_reference and name not in ("react", "mahalanobis_layers"):
            with pytest.raises(InputError, match=f"{name}: the reference does not fit the model"):
                detector.confidence(drawn_world.new, drawn_world.head, detector.reference(other.known, other.head))


def test_arrays_that_do_not_fit_are_refused():
    drawn_world = WORLDS["relu"]
    new, head = drawn_world.new, drawn_world.head
    with pytest.raises(InputError, match=r"vector has the shape \(3, 9\), not one row for each of 12 labels"):
        DETECTORS["gradnorm"].confidence(Observations(new.logits, new.label, new.vector[:3]), head)
    with pytest.raises(InputError, match="a label is none of the 5 classes"):
        DETECTORS["energy"].confidence(Observations(new.logits, new.label - 9))
    with pytest.raises(InputError, match=r"the head's weight \(5, 9\) does not fit 5 classes and 4 numbers"):
        DETECTORS["ash_s"].confidence(Observations(new.logits, new.label, new.vector[:, :4]), head)
    with pytest.raises(InputError, match=r"a head has a weight \[q, D\] and a bias \[q\]"):
        LastLayer(head.weight, head.bias[:2])


def test_what_is_kept_is_bounded():
    rng = np.random.default_rng(0)
    many = Observations(
        rng.standard_normal((3 * BANK_ROWS, 3)), rng.integers(0, 3, 3 * BANK_ROWS), rng.random((3 * BANK_ROWS, 2))
    )
    for name in ("knn", "nnguide"):
        first, again = (DETECTORS[name].reference(many)["bank"] for _ in range(2))
        assert first.shape == (BANK_ROWS, 2)
        np.testing.assert_array_equal(first, again)
    assert len(set(bank_rows(5000))) == BANK_ROWS
    assert principal(rng.standard_normal((600, 600)), 600).shape == (600, 512)
    wide = Observations(np.zeros((2, 3)), np.zeros(2, dtype=np.int64), np.zeros((2, WIDEST + 1)))
    head = LastLayer(np.zeros((3, WIDEST + 1)), np.zeros(3))
    for name, detector in DETECTORS.items():
        if detector.keeps_pairs:
            with pytest.raises(ModelError, match=f"{name} keeps a matrix .* 2,049; the limit is 2,048"):
                detector.reference(wide, head)
    classes = Observations(np.zeros((1, WIDEST + 1)), np.zeros(1, dtype=np.int64), np.ones((1, 1)))
    with pytest.raises(ModelError, match="fdbd keeps a matrix over all pairs of classes"):
        DETECTORS["fdbd"].reference(classes, LastLayer(np.ones((WIDEST + 1, 1)), np.zeros(WIDEST + 1)))


def test_shrinkage_is_that_of_scikit_learn(rng):
    for shape in ((40, 6), (6, 40), (500, 3)):
        x = rng.standard_normal(shape) * rng.random(shape[1])
        assert shrinkage_of(x) == pytest.approx(ledoit_wolf_shrinkage(x, assume_centered=True), rel=1e-9)
    assert shrinkage_of(np.zeros((5, 3))) == 1
    np.testing.assert_array_equal(whitening(np.zeros((5, 3))), np.eye(3))


def test_directions_hold_their_share(rng):
    x = rng.standard_normal((200, 8)) * np.arange(1, 9)
    basis = explaining(x, 0.9)
    inside = ((x @ basis) ** 2).sum() / (x**2).sum()
    fewer = ((x @ basis[:, :-1]) ** 2).sum() / (x**2).sum()
    assert fewer < 0.9 <= inside


def test_no_shape_and_scale_have_more_likelihood(rng):
    x = 1e4 + 3 * rng.random(20)
    shape, scale = weibull(x)
    best = weibull_min.logpdf(x, shape, scale=scale).sum()
    for more in (1.01, 0.99):
        assert weibull_min.logpdf(x, shape * more, scale=scale).sum() < best
        assert weibull_min.logpdf(x, shape, scale=scale * (1 + (more - 1) / shape)).sum() < best
    assert weibull(np.full(4, 1e4)) == (1e7, pytest.approx(1e4))


def test_only_known_operators_are_emitted():
    emit = Nodes()
    value = Traced(emit, "x")
    with pytest.raises(TypeError, match="no operator"):
        np.sin(value)
    with pytest.raises(TypeError, match="no operator"):
        np.add.reduce(value)
    with pytest.raises(ValueError, match="Loop is not among the operators"):
        emit("Loop", "x")


def test_a_constant_is_stored_once():
    drawn_world = WORLDS["relu"]
    emit = Nodes()
    for name in ("vim", "vim"):
        detector = DETECTORS[name]
        reference = REFERENCE.setdefault(name, detector.reference(drawn_world.known, drawn_world.head))
        detector.emit(emit, {"logits": "z", "label": "y", "vector": "a"}, 5, drawn_world.head, reference)
    sizes = [one.dims for one in emit.graph_of("g", {}, {}).initializer if list(one.dims) == [9, 4]]
    assert len(sizes) == 1


REFERENCE = {}


def test_worlds_are_what_they_say():
    assert not np.isin(WORLDS["lacking"].known.label, (1, 3)).any()
    assert np.isin(WORLDS["lacking"].new.label, (1, 3)).any()
    assert isinstance(WORLDS["relu"], World)
    assert WORLDS["narrow"].head.weight.shape == (9, 3)
