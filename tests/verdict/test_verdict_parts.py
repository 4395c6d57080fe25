"""The parts of a verdict that scikit-learn lacks, or that come after the classifier, each against an oracle."""

import numpy as np
import pytest
import torch
from onnx import helper
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from gradscore.errors import InputError
from gradscore.metrics.evaluation import evaluate
from gradscore.runtime.session import open_session
from gradscore.verdict import CALIBRATIONS, TRANSFORMS, Verdict, explain
from gradscore.verdict.learning.classifiers.network import BATCH, PlateauNetwork, loss_and_gradients
from gradscore.verdict.learning.interpolation import Interpolation
from gradscore.verdict.learning.transforms import Quantile
from gradscore.verdict.learning.verdict_nodes import INPUT, IR_VERSION, OPSET, OUTPUT, VerdictNodes

NAMES = ("conv.l1", "conv.std", "fc.l1", "fc.std", "entropy")


def cases(count, seed=0):
    """Features over decades of which conv.* and entropy tell the outcome, fc.* nothing."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=count)
    correct = rng.random(count) < 1 / (1 + np.exp(2 * hidden - 1))
    telling = [np.exp(hidden + 0.1 * rng.normal(size=count)) for _ in range(3)]
    empty = [np.exp(3 * rng.normal(size=count)) for _ in range(2)]
    return np.stack([telling[0], telling[1] * 1e-12, empty[0], empty[1], telling[2]], axis=1), correct


ROWS, RIGHT = cases(700)
TEST, TEST_RIGHT = cases(600, 1)


def fitted(method="ridge", **settings):
    return Verdict.fit(ROWS, RIGHT, feature_names=NAMES, model_fingerprint="ab" * 32, method=method, **settings)


def run(emitted, rows):
    """Run what `emitted(emit, name)` writes on rows [N, F], in onnxruntime."""
    emit = VerdictNodes()
    flat = emit("Reshape", emitted(emit, INPUT), np.array([-1]))
    graph = emit.graph((flat, flat, flat), rows.shape[1])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return open_session(model.SerializeToString()).run([OUTPUT], {INPUT: rows})[0]


# ---------------------------------------------------------------- the network


def test_gradients_are_those_of_torch():
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape) for shape in ((4, 15), (15,), (15, 2), (2,))]
    z, targets = rng.normal(size=(32, 4)), np.eye(2)[rng.integers(0, 2, 32)]
    loss, gradients = loss_and_gradients(weights, z, targets)
    leaves = [torch.tensor(weight, requires_grad=True) for weight in weights]
    logits = torch.relu(torch.tensor(z) @ leaves[0] + leaves[1]) @ leaves[2] + leaves[3]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(targets))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    for gradient, leaf in zip(gradients, leaves, strict=True):
        np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-10, atol=1e-12)


def trained_by_torch(z, correct, seed):
    """The same training in torch's own words: its SGD and its ReduceLROnPlateau."""
    rng = np.random.default_rng(seed)
    layers = [torch.nn.Linear(z.shape[1], 15).double(), torch.nn.Linear(15, 2).double()]
    with torch.no_grad():
        for layer in layers:
            bound = 1 / np.sqrt(layer.in_features)
            layer.weight.copy_(torch.tensor(rng.uniform(-bound, bound, layer.weight.T.shape).T))
            layer.bias.copy_(torch.tensor(rng.uniform(-bound, bound, layer.bias.shape)))
    model = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=10)
    inputs, targets = torch.tensor(z), torch.tensor(correct.astype(np.int64))
    rates = []
    while optimizer.param_groups[0]["lr"] >= 0.001 * (1 - 1e-9):
        rates.append(optimizer.param_groups[0]["lr"])
        order, total = torch.tensor(rng.permutation(len(z))), 0.0
        for rows in order.split(BATCH):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows) / len(z)
        plateau.step(total)
    return torch.softmax(model(inputs), dim=1).detach().numpy(), rates


def test_training_is_that_of_torch_epoch_by_epoch():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(200, 3))
    correct = z[:, 0] + 0.5 * rng.normal(size=200) > 0
    expected, rates = trained_by_torch(z, correct, seed=5)
    assert sorted(set(np.round(rates, 6))) == [0.001, 0.01, 0.1]
    np.testing.assert_allclose(PlateauNetwork(seed=5).fit(z, correct).predict_proba(z), expected, atol=1e-8)


def test_a_network_that_diverges_says_so():
    with pytest.raises(InputError, match="the network diverged"), np.errstate(all="ignore"):
        PlateauNetwork(first_rate=1e200).fit(np.ones((20, 2)) * np.arange(20)[:, None], np.arange(20) < 10)


def test_the_network_learns_what_no_line_can():
    rng = np.random.default_rng(0)
    rows = np.exp(rng.normal(size=(1000, 2)))
    correct = (np.log(rows) ** 2).sum(axis=1) < 1.4
    names = ("a", "b")
    found = {
        method: Verdict.fit(rows[:700], correct[:700], feature_names=names, model_fingerprint="0", method=method)
        for method in ("nn", "glm")
    }
    scores = {name: evaluate(one.apply(rows[700:]), correct[700:]).auroc for name, one in found.items()}
    assert scores["nn"] > 0.97
    assert scores["glm"] < 0.7


# ---------------------------------------------------------------- interpolation and the quantile transform


def test_interpolation_is_that_of_numpy_in_numpy_and_in_onnx():
    rng = np.random.default_rng(0)
    knots = [
        (np.sort(rng.normal(size=9)), rng.normal(size=9)),
        (np.array([0.0, 1e-300, 1.0]), np.array([0.0, 1.0, -1.0])),
        (np.array([2.0]), np.array([0.25])),
        (np.array([-1e300, 1e300]), np.array([5.0, 6.0])),
    ]
    curves = Interpolation.through(knots)
    rows = np.vstack([rng.normal(size=(200, 4)) * 2, np.zeros(4), *(np.full(4, x) for x in (-1e307, 1e307, 1.0, 2.0))])
    rows = np.vstack([rows, np.stack([knots[0][0][:9], *[np.zeros(9)] * 3], axis=1)])
    expected = np.stack([np.interp(column, *one) for column, one in zip(rows.T, knots, strict=True)], axis=1)
    np.testing.assert_allclose(curves(rows), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(run(curves.emit, rows).reshape(-1, 4), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(curves.only(np.array([2, 0]))(rows[:, [2, 0]]), curves(rows)[:, [2, 0]])


def test_the_quantile_transform_knows_ranks_only():
    """An ascending map of a feature, sampled densely, changes nothing but what lies between two knots."""
    columns = np.arange(5)
    transform = Quantile.fit(ROWS, columns)
    z = transform(ROWS)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-12)
    order = np.argsort(ROWS[:, 2], kind="stable")
    assert (np.diff(z[order, 2]) >= 0).all()
    squared = ROWS**2
    np.testing.assert_allclose(Quantile.fit(squared, columns)(squared), z, atol=0.15)  # the tails lie between far knots
    ends = transform(np.stack([np.zeros(5), ROWS.min(axis=0), ROWS.max(axis=0), np.full(5, 1e30)]))
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-9)
    np.testing.assert_allclose(ends[2], ends[3], atol=1e-9)


def test_features_of_few_values_become_quantiles_too():
    rows = np.stack([np.repeat([1.0, 2.0, 3.0], 40), np.full(120, 7.0), np.r_[np.zeros(119), 1.0]], axis=1)
    transform = Quantile.fit(rows, np.arange(3))
    assert transform.columns.tolist() == [0, 2]
    z = transform(rows)
    assert len(np.unique(z[:, 0])) == 3
    assert np.isfinite(z).all()
    np.testing.assert_allclose(run(transform.emit, rows).reshape(-1, 2), z, atol=1e-12)


@pytest.mark.parametrize("calibration", CALIBRATIONS)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("method", ["ridge", "nn", "threshold"])
def test_the_saved_verdict_equals_what_was_fitted(tmp_path, method, transform, calibration):
    from gradscore.verdict.learning.classifiers import fitting
    from gradscore.verdict.learning.settings import Settings

    settings = {"method": method, "transform": transform, "calibration": calibration, "folds": 2, "ensemble": 1}
    fit = fitting.fit(ROWS, RIGHT, NAMES, Settings(**settings))
    fitted(**settings).save(tmp_path / "v.onnx")
    again = Verdict.load(tmp_path / "v.onnx")
    extremes = np.random.default_rng(0).choice([0.0, -0.0, 1e-300, -1e-30, 1e30, -1e300, 1.0], size=(300, 5))
    for rows in (TEST, extremes):
        np.testing.assert_allclose(again.apply(rows), fit.p_correct(rows), rtol=0, atol=1e-9)
        assert ((again.apply(rows) >= 0) & (again.apply(rows) <= 1)).all()
    assert np.isnan(again.apply(np.array([[1, np.nan, 1, 1, 1], [1, 1, 1, np.inf, 1]]))).all()
    assert (again.summary["transform"], again.summary["calibration"]) == (transform, calibration)


# ---------------------------------------------------------------- calibration


def overconfident(count, seed):
    """P(correct) whose log odds are three times too large, and one and a half too high."""
    rng = np.random.default_rng(seed)
    odds = 1.5 * rng.normal(size=count)
    return 1 / (1 + np.exp(-(3 * odds + 1.5))), rng.random(count) < 1 / (1 + np.exp(-odds))


def test_platt_is_the_maximum_of_its_likelihood():
    p, right = overconfident(500, 0)
    found = CALIBRATIONS["platt"].fit(p, right)
    target = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    odds = np.log(p / (1 - p))

    def loss(curve):
        margin = curve[0] * odds + curve[1]
        return np.sum(np.logaddexp(0, margin) - target * margin)

    best = minimize(loss, [1.0, 0.0], tol=1e-12)
    np.testing.assert_allclose([found.slope, found.offset], best.x, atol=1e-4)


def test_isotonic_is_scikit_learns():
    p, right = overconfident(500, 0)
    oracle = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(p, right)
    fresh = np.r_[overconfident(300, 1)[0], 0, 1]
    np.testing.assert_allclose(CALIBRATIONS["isotonic"].fit(p, right)(fresh), oracle.predict(fresh), atol=1e-12)


@pytest.mark.parametrize("calibration", ["platt", "isotonic"])
def test_calibration_mends_overconfidence(calibration):
    found = CALIBRATIONS[calibration].fit(*overconfident(2000, 0))
    p, right = overconfident(4000, 1)
    assert evaluate(p, right).ece > 0.1
    assert evaluate(found(p), right).ece < 0.04
    assert evaluate(found(p), right).auroc == pytest.approx(evaluate(p, right).auroc, abs=0.01)


def test_platt_mends_an_overfitted_network():
    fresh, outcome = cases(4000, 7)
    losses = {"none": [], "platt": []}
    for calibration, found in losses.items():
        for seed in range(3):
            rows, right = cases(150, 100 + seed)
            verdict = Verdict.fit(
                rows, right, feature_names=NAMES, model_fingerprint="ab" * 32, method="nn", calibration=calibration
            )
            found.append(log_loss(outcome, verdict.apply(fresh)))
    assert np.mean(losses["platt"]) < np.mean(losses["none"]) - 0.01


def test_calibration_learns_from_held_out_rows_only():
    with pytest.raises(InputError, match="platt calibration needs rows held out"):
        fitted(calibration="platt", folds=0)
    with pytest.raises(InputError, match="unknown calibration 'beta'; choose one of: none, platt, isotonic"):
        fitted(calibration="beta")
    with pytest.raises(InputError, match="unknown transform 'log'; choose one of: signed-log, quantile"):
        fitted(transform="log")


# ---------------------------------------------------------------- explanation


@pytest.mark.parametrize("method", ["ridge", "nn", "boosting"])
def test_importance_finds_what_tells_the_outcome(method):
    found = explain(fitted(method, folds=0), TEST, TEST_RIGHT)
    loss = {(one.kind, one.name): one.loss for one in found}
    assert loss["layer", "conv"] > 0.05 > 0.03 > abs(loss["layer", "fc"])
    assert loss["layer", "conv"] > loss["feature", "conv.l1"]
    assert set(loss) == {
        *(("feature", name) for name in NAMES),
        *(("layer", name) for name in ("conv", "fc")),
        *(("statistic", name) for name in ("l1", "std", "entropy")),
        *(("head", name) for name in ("p_right", "p_known")),
    }
    kinds = [one.kind for one in found]
    assert kinds == sorted(kinds, key=["head", "layer", "statistic", "feature"].index)
    assert all((one.coefficient is not None) == (method == "ridge" and one.kind == "feature") for one in found)


def test_importance_of_one_feature_is_the_auroc_lost_by_shuffling_it():
    verdict = fitted(select=["conv.l1"])
    by_kind = {one.kind: one for one in explain(verdict, TEST, TEST_RIGHT, repeats=50)}
    alone = evaluate(verdict.apply(TEST), TEST_RIGHT).auroc
    assert by_kind["feature"].loss == by_kind["layer"].loss == pytest.approx(alone - 0.5, abs=0.02)
    assert explain(verdict, TEST, TEST_RIGHT, seed=3) == explain(verdict, TEST, TEST_RIGHT, seed=3)


def test_explanations_that_cannot_be():
    verdict = fitted(folds=0)
    with pytest.raises(InputError, match="600 correct of 600 rows"):
        explain(verdict, TEST, np.ones(600, bool))
    with pytest.raises(InputError, match=r"correct must be boolean \[600\]"):
        explain(verdict, TEST, TEST_RIGHT[:-1])
    with pytest.raises(InputError, match="0 repeats"):
        explain(verdict, TEST, TEST_RIGHT, repeats=0)
