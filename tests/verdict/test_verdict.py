"""Verdicts from their ONNX file against scikit-learn itself, and the files, tables and rows that are refused."""

import json

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier

from gradscore.errors import InputError, MismatchError, ModelError, OutputExistsError
from gradscore.metrics.evaluation import evaluate
from gradscore.metrics.ranking import Ranking
from gradscore.tables.table import ScoreTable, schema, to_batch
from gradscore.verdict import METHODS, Verdict
from gradscore.verdict.learning import verdict_nodes as emitter
from gradscore.verdict.learning.classifiers import fitting
from gradscore.verdict.learning.settings import Settings
from gradscore.verdict.learning.thresholds import Balanced, ConformalRisk, TargetPrecision, balanced_gain
from gradscore.verdict.learning.transforms import SignedLog

NAMES = (
    "conv1.l1",
    "conv1.l2",
    "conv1.mean",
    "fc.l1",
    "fc.skewness",
    "all.std",
    "all.constant",
    "max_softmax",
    "residual",
)
FINGERPRINT = "ab" * 32


def features(count, seed):
    """Return features like those of gradients, over many decades, and which predictions were right."""
    rng = np.random.default_rng(seed)
    residual = 10 ** rng.uniform(-12, 0, count)
    other = rng.normal(size=count)
    correct = rng.random(count) < 1 / (1 + np.exp(np.log10(residual) + 2 - other))
    noise = np.exp(0.3 * rng.normal(size=(4, count)))
    columns = [
        residual * noise[0] * 1e-18,
        residual * noise[1],
        residual * rng.normal(size=count),
        residual * noise[2] * 1e10,
        other + 0.5 * rng.normal(size=count),
        residual * noise[3] * 1e-3,
        np.full(count, 5.0),
        1 - residual,
        residual,
    ]
    return np.stack(columns, axis=1), correct


TRAIN, RIGHT = features(600, 0)
TEST, TEST_RIGHT = features(500, 1)


def fitted(method="lasso", rows=TRAIN, correct=RIGHT, names=NAMES, **settings):
    return Verdict.fit(rows, correct, feature_names=names, model_fingerprint=FINGERPRINT, method=method, **settings)


def directly(method="lasso", transform="signed-log", calibration="none", select=None, folds=5, ensemble=1, seed=0):
    settings = Settings(method, transform, calibration, select, folds, ensemble, seed)
    return fitting.fit(TRAIN, RIGHT, NAMES, settings)


def table(rows=TEST, errors=None, names=NAMES, fingerprint=FINGERPRINT):
    metadata = {"model_fingerprint": fingerprint, "class_names": ["cat", "dog"]}
    ids = [f"{index}.png" for index in range(len(rows))]
    part = to_batch(schema(names, metadata), ids=ids, labels=np.zeros(len(rows), int), features=rows, errors=errors)
    return ScoreTable.of(pa.Table.from_batches([part]))


@pytest.fixture(scope="module")
def verdict():
    return fitted()


def extremes():
    """Rows of features far outside those seen in training."""
    values = [0.0, -0.0, 1e-300, 1e-40, -1e-30, 1e-30, 1.0, -1e10, 1e30, -1e30, 1e300]
    rng = np.random.default_rng(5)
    return np.vstack([np.tile(np.array(values)[:, None], len(NAMES)), rng.choice(values, size=(200, len(NAMES)))])


# ---------------------------------------------------------------- ONNX against scikit-learn


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("folds", [0, 5])
def test_the_onnx_verdict_equals_scikit_learn(tmp_path, method, folds):
    path = tmp_path / "verdict.onnx"
    fitted(method, folds=folds).save(path)
    reference = directly(method, folds=folds)
    again = Verdict.load(path)
    for rows in (TEST, TRAIN, extremes(), TEST[:1]):
        np.testing.assert_allclose(again.apply(rows), reference.p_correct(rows), rtol=0, atol=1e-9)
    assert again.threshold == reference.threshold
    assert again.method == method


def by_hand(rows, columns):
    """The transform as its documentation says, written out for one feature at a time."""
    out = []
    for column in columns:
        train, x = TRAIN[:, column], rows[:, column]
        minority = min(np.mean(train > 0), np.mean(train < 0))
        scale = max(1e-36, np.quantile(np.abs(train), max(0.01, minority)))
        logs = np.sign(train) * np.log(1 + np.abs(train) / scale)
        out.append((np.sign(x) * np.log(1 + np.abs(x) / scale) - logs.mean()) / logs.std())
    return np.stack(out, axis=1)


VARYING = [index for index, name in enumerate(NAMES) if name != "all.constant"]
LOGISTIC = {"tol": 1e-9, "max_iter": 100_000, "random_state": 0}


@pytest.mark.parametrize(
    ("method", "estimator"),
    [
        ("glm", LogisticRegression(C=np.inf, **LOGISTIC)),
        ("lasso", LogisticRegression(l1_ratio=1, C=100 / 600, solver="saga", **LOGISTIC)),
        ("ridge", LogisticRegression(C=100 / 600, **LOGISTIC)),
        ("elastic-net", LogisticRegression(l1_ratio=0.5, C=100 / 600, solver="saga", **LOGISTIC)),
        ("boosting", GradientBoostingClassifier(subsample=0.5, max_features="sqrt", random_state=0)),
    ],
)
def test_methods_equal_scikit_learn_fitted_by_hand(method, estimator):
    by_itself = estimator.fit(by_hand(TRAIN, VARYING), RIGHT).predict_proba(by_hand(TEST, VARYING))[:, 1]
    np.testing.assert_allclose(fitted(method, folds=0).apply(TEST), by_itself, rtol=0, atol=1e-6)


def test_lasso_minimises_its_objective_with_a_free_intercept():
    coefficients = directly(folds=0).members[0]
    z, penalty = by_hand(TRAIN, VARYING), 1e-2
    p = coefficients.predict_proba(z)[:, 1]
    slope = z.T @ (RIGHT - p) / len(z)
    weights = coefficients.coef_[0]
    assert 0 < np.count_nonzero(weights) < len(weights)
    np.testing.assert_allclose(slope[weights != 0], penalty * np.sign(weights[weights != 0]), atol=1e-6)
    assert np.all(np.abs(slope[weights == 0]) <= penalty + 1e-6)
    assert p.mean() == pytest.approx(RIGHT.mean(), abs=1e-6)


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(class_weight="balanced"),
        SGDClassifier(loss="log_loss", random_state=0),
        LinearDiscriminantAnalysis(),
        MLPClassifier((7, 5), max_iter=2000, random_state=0),
        GradientBoostingClassifier(n_estimators=7, max_depth=5, random_state=0),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_given_estimator_is_saved_as_it_is(estimator):
    found = fitted(estimator, folds=0)
    assert found.method == type(estimator).__name__
    np.testing.assert_allclose(found.apply(TEST), directly(estimator, folds=0).p_correct(TEST), rtol=0, atol=1e-9)
    assert not hasattr(estimator, "classes_"), "the caller's estimator must stay unfitted"


def test_trees_that_are_single_leaves_or_lopsided():
    rows = np.tile(np.array([[1.0], [2.0], [3.0]]), (20, 1))
    correct = np.tile([True, True, False], 20)
    correct[:5] = False
    for depth, estimators in ((1, 3), (4, 2)):
        method = GradientBoostingClassifier(n_estimators=estimators, max_depth=depth, random_state=0)
        found = fitted(method, rows, correct, ("f",), folds=0)
        transform = SignedLog.fit(rows, np.array([0]))
        expected = method.fit(transform(rows), correct).predict_proba(transform(rows))[:, 1]
        np.testing.assert_allclose(found.apply(rows), expected, atol=1e-12)


def test_an_ensemble_is_the_mean_of_its_seeds():
    whole = fitted("nn", ensemble=3, folds=0, seed=4)
    parts = [fitted("nn", folds=0, seed=seed).apply(TEST) for seed in (4, 5, 6)]
    np.testing.assert_allclose(whole.apply(TEST), np.mean(parts, axis=0), atol=1e-12)
    assert not np.allclose(parts[0], parts[1])


def test_float32_features_change_nothing_that_matters():
    found = fitted()
    rounded = found.apply(TEST.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(rounded, found.apply(TEST), atol=1e-5)
    flushed = np.where(np.abs(TEST) < 1.2e-38, 0.0, TEST)
    np.testing.assert_allclose(found.apply(flushed), found.apply(TEST), atol=1e-3)


# ---------------------------------------------------------------- what a verdict is


@pytest.mark.parametrize("method", METHODS)
def test_verdicts_rank_and_are_calibrated(method):
    p = fitted(method).apply(TEST)
    found = evaluate(p, TEST_RIGHT)
    assert found.auroc > 0.85
    assert found.ece < 0.12
    assert p.mean() == pytest.approx(TEST_RIGHT.mean(), abs=0.05)


def test_p_correct_keeps_the_training_mix_when_errors_are_rare():
    rng = np.random.default_rng(3)
    rows, correct = features(20_000, 2)
    kept = correct | (rng.random(len(correct)) < 0.1)
    found = fitted(rows=rows[kept], correct=correct[kept], folds=0)
    assert found.apply(rows[kept]).mean() == pytest.approx(correct[kept].mean(), abs=1e-3)


def test_the_same_seed_gives_the_same_bytes_whatever_ran_before(tmp_path):
    for method in ("lasso", "nn", "boosting"):
        one, two = (fitted(method, folds=2, seed=7).proto.SerializeToString(deterministic=True) for _ in range(2))
        assert one == two


def test_rows_do_not_depend_on_their_batch(verdict):
    many = np.tile(TEST, (20, 1))
    np.testing.assert_allclose(verdict.apply(many)[-len(TEST) :], verdict.apply(TEST), rtol=0, atol=1e-14)
    assert verdict.apply(np.empty((0, len(NAMES)))).shape == (0,)


def test_cross_validation_picks_the_penalty_of_least_held_out_loss(verdict):
    assert verdict.summary["penalty"] in METHODS["lasso"].penalties
    assert verdict.summary["threshold_rows"] == "held out by cross-validation"
    noise = np.random.default_rng(0).normal(size=TRAIN.shape)
    hopeless = fitted(rows=noise)
    assert hopeless.summary["penalty"] == max(METHODS["lasso"].penalties)


def test_the_path_ends_after_two_penalties_that_are_no_better_and_transforms_once_a_fold(monkeypatch):
    calls = {"fits": 0, "transforms": 0}
    weaken, transform = fitting._Fold.weaken, SignedLog.fit

    def counted_weaken(fold):
        calls["fits"] += 1
        return weaken(fold)

    def counted_transform(*given):
        calls["transforms"] += 1
        return transform(*given)

    monkeypatch.setattr(fitting._Fold, "weaken", counted_weaken)
    monkeypatch.setattr(SignedLog, "fit", counted_transform)
    noise = np.random.default_rng(0).normal(size=TRAIN.shape)
    assert fitted(rows=noise).summary["penalty"] == METHODS["lasso"].penalties[0]
    assert calls == {"fits": 5 * 3, "transforms": 5 + 1 + 5}  # the folds, all rows, the trial


@pytest.mark.parametrize("method", ["lasso", "ridge", "nn", "boosting"])
def test_the_number_of_cores_changes_no_bit(monkeypatch, method):
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(fitting, "usable_cores", lambda cores=cores: cores)
        found.append(fitted(method, folds=3).proto.SerializeToString(deterministic=True))
    assert found[0] == found[1]


def test_many_rows_are_tuned_on_a_part_and_fitted_whole(monkeypatch):
    monkeypatch.setattr("gradscore.verdict.learning.classifiers.fitting.MOST_TUNING_ROWS", 300)
    found = fitted()
    assert found.summary["notes"] == ["cross-validated on 300 of 600 rows"]
    assert found.summary["rows"] == 600
    assert found.summary["hyper_parameters"]["penalty"] == found.summary["penalty"]


def test_too_few_rows_for_folds_fall_back_and_say_so():
    chosen = np.r_[np.flatnonzero(RIGHT)[:50], np.flatnonzero(~RIGHT)[:6]]
    summary = fitted(rows=TRAIN[chosen], correct=RIGHT[chosen]).summary
    assert (summary["penalty"], summary["folds"], summary["threshold_rows"]) == (1e-2, 0, "training")
    assert "too few rows of one class for 5 folds" in summary["notes"][0]


def test_the_threshold_method_uses_the_feature_that_separates_best():
    found = fitted("threshold", folds=0)
    gains = {}
    for index in VARYING:
        both = [balanced_gain(Ranking.of(sign * TRAIN[:, index], RIGHT)) for sign in (1, -1)]
        gains[NAMES[index]] = max(both)
    assert found.summary["used_features"] == [max(gains, key=gains.get)]
    accepted = found.apply(TRAIN) >= found.threshold
    balance = 0.5 * accepted[RIGHT].mean() + 0.5 * (~accepted[~RIGHT]).mean()
    assert balance == pytest.approx(max(gains.values()), abs=1e-12)


def test_features_are_selected_by_pattern():
    found = fitted(select=["fc.*", "residual"])
    assert found.summary["used_features"] == ["fc.l1", "fc.skewness", "residual"]
    assert found.feature_names == NAMES
    changed = TEST.copy()
    changed[:, 0] = 1e5
    np.testing.assert_array_equal(found.apply(changed), found.apply(TEST))


def test_summary_tells_how_it_came_about(verdict):
    summary = json.loads(json.dumps(verdict.summary))
    assert (summary["rows"], summary["correct"], summary["incorrect"]) == (600, RIGHT.sum(), (~RIGHT).sum())
    assert summary["estimator"] == "PenalizedLogistic"
    assert summary["hyper_parameters"] == {"penalty": summary["penalty"], "l1_ratio": 1.0}
    assert "all.constant" not in summary["used_features"]
    assert set(summary["coefficients"]) <= set(summary["used_features"])
    assert set(summary["versions"]) == {"gradscore", "numpy", "onnx", "scikit-learn"}


def test_another_rule_changes_the_threshold_and_nothing_else(tmp_path, verdict):
    stricter = verdict.decide_by(TargetPrecision(0.95), TEST, TEST_RIGHT)
    p = verdict.apply(TEST)
    np.testing.assert_array_equal(stricter.apply(TEST), p)
    assert TEST_RIGHT[p >= stricter.threshold].mean() >= 0.95
    assert stricter.summary["threshold_rule"] == {"rule": "target-precision", "value": 0.95}
    assert stricter.summary["threshold_rows"] == "500 further rows"
    assert verdict.summary["threshold_rule"] == {"rule": "balanced"}
    stricter.save(tmp_path / "v.onnx")
    assert Verdict.load(tmp_path / "v.onnx").threshold == stricter.threshold


def test_the_rule_of_a_fit_is_applied_to_held_out_rows():
    found = fitted(rule=TargetPrecision(0.95))
    accepted = found.apply(TEST) >= found.threshold
    assert TEST_RIGHT[accepted].mean() > 0.9
    with pytest.raises(InputError, match=r"conformal-risk needs rows that the verdict was not fitted on.*decide_by"):
        fitted(rule=ConformalRisk(0.1))


def test_decide_by_leaves_out_rows_that_are_not_finite(verdict):
    rows = np.vstack([TEST, np.full((5, len(NAMES)), np.nan)])
    found = verdict.decide_by(Balanced(), rows, np.r_[TEST_RIGHT, [False] * 5])
    assert found.threshold == verdict.decide_by(Balanced(), TEST, TEST_RIGHT).threshold
    with pytest.raises(InputError, match="of 500 rows 500 are correct"):
        verdict.decide_by(Balanced(), TEST, np.ones(500, bool))


# ---------------------------------------------------------------- rows and tables


def test_rows_that_are_not_finite_are_nan_and_spoil_no_other(verdict):
    rows = TEST[:6].copy()
    rows[1, 0], rows[3, 6], rows[4, 8] = np.nan, np.inf, -np.inf
    p = verdict.apply(rows)
    assert np.isnan(p).tolist() == [False, True, False, True, True, False]
    np.testing.assert_allclose(p[[0, 2, 5]], verdict.apply(TEST)[[0, 2, 5]], atol=1e-14)


def test_rows_that_are_not_finite_are_left_out_of_the_fit_and_counted():
    rows = np.vstack([TRAIN, np.full((3, len(NAMES)), np.nan), np.full((1, len(NAMES)), np.inf)])
    found = fitted(rows=rows, correct=np.r_[RIGHT, [True] * 4])
    assert found.summary["excluded_not_finite"] == 4
    np.testing.assert_array_equal(found.apply(TEST), fitted().apply(TEST))


def test_judge_says_accept_reject_or_why_not(verdict):
    rows = TEST[:50].copy()
    rows[2, 1], rows[2, 3] = np.nan, np.inf
    judged = verdict.judge(table(rows, errors=[None, "truncated", *[None] * 48]))
    assert judged.column_names == [
        "id", "label", "label_name", "p_right", "p_known", "p_correct", "verdict", "why", "error"
    ]  # fmt: skip
    p, said = judged.column("p_correct").to_pylist(), judged.column("verdict").to_pylist()
    assert (p[1], said[1], p[2], said[2]) == (None, None, None, None)
    assert judged.column("error").to_pylist()[1:4] == [
        "truncated",
        "2 features are NaN or Inf, the first of them conv1.l2",
        None,
    ]
    decided = [index for index in range(50) if index not in (1, 2)]
    assert [said[i] for i in decided] == ["accept" if p[i] >= verdict.threshold else "reject" for i in decided]
    assert {"accept", "reject"} <= set(said)


def test_a_table_of_another_model_is_refused(verdict):
    with pytest.raises(MismatchError, match="the verdict belongs to abababababab…, the table to cccccccccccc…"):
        verdict.apply(table(fingerprint="cc" * 32))


def test_a_table_of_other_features_is_refused(verdict):
    other = (*NAMES[:3], "fc.l3", *NAMES[4:])
    with pytest.raises(MismatchError, match=r"verdict has 9, the table has 9; .* feature 4: 'fc.l1' against 'fc.l3'"):
        verdict.apply(table(names=other))
    with pytest.raises(MismatchError, match=r"has 9, the table has 8; .* feature 9: 'residual' against nothing"):
        verdict.judge(table(TEST[:, :8], names=NAMES[:8]))
    with pytest.raises(InputError, match=r"must be \[N, 9\] as the names are; got shape \(500, 8\)"):
        verdict.apply(TEST[:, :8])


# ---------------------------------------------------------------- fits that cannot be


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": np.ones(600, bool)}, "to 600 correct and 0 incorrect predictions: at least 5 of each"),
        ({"rows": TRAIN[:3], "correct": RIGHT[:3]}, "at least 5 of each"),
        ({"rows": np.full((600, 9), np.nan)}, r"to 0 correct and 0 incorrect predictions \(600 more have NaN"),
        ({"rows": np.ones((600, 9))}, "all 9 features are constant over the 600 rows"),
        ({"correct": RIGHT[:-1]}, r"correct must be \[600\]"),
        ({"correct": np.r_[RIGHT[:-2].astype(float), np.nan, np.nan]}, "2 of 600 rows have no label"),
        ({"correct": np.array([None, *RIGHT[1:]], dtype=object)}, "1 of 600 rows have no label"),
        ({"rows": TRAIN[:, :4]}, r"must be \[N, 9\]"),
        (
            {"method": "lasse"},
            "choose one of: auto, two-heads, max-softmax, threshold, glm, lasso, ridge, elastic-net, nn, boosting",
        ),
        (
            {"method": RandomForestClassifier()},
            "RandomForestClassifier cannot be saved .* use one of scikit-learn's: Log",
        ),
        ({"method": SGDClassifier(loss="hinge")}, "gives no probabilities"),
        ({"method": MLPClassifier(activation="tanh", max_iter=5000)}, "activation='relu' only, not 'tanh'"),
        ({"method": GradientBoostingClassifier(max_depth=9, n_estimators=1)}, "max_depth to 8 or less"),
        ({"method": GradientBoostingClassifier(loss="exponential")}, "init=None and loss='log_loss' only"),
        ({"select": ["conv9.*"]}, r"no feature matches 'conv9\.\*'"),
        ({"select": []}, "no feature is selected"),
        ({"ensemble": 0}, "ensemble must be 1 or more"),
        ({"folds": 1}, "folds 0 or from 2 up"),
    ],
)
def test_bad_fits(change, message):
    with pytest.raises(InputError, match=message):
        fitted(**{"folds": 0, **change})


def test_glm_refuses_fewer_rows_than_features_and_lasso_does_not():
    rng = np.random.default_rng(0)
    rows, correct = rng.normal(size=(20, 30)), np.arange(20) < 10
    names = [f"f{index}" for index in range(30)]
    with pytest.raises(InputError, match=r"20 rows and 30 features: .* --method lasso"):
        fitted("glm", rows, correct, names)
    assert np.isfinite(fitted("lasso", rows, correct, names).apply(rows)).all()


def test_separable_classes_still_give_probabilities():
    rows = np.r_[np.linspace(1, 2, 50), np.linspace(5, 6, 50)][:, None]
    correct = np.arange(100) < 50
    for method in METHODS:
        p = fitted(method, rows, correct, ("f",)).apply(rows)
        assert ((p >= 0) & (p <= 1)).all()
        assert p[correct].min() > p[~correct].max()


def test_noise_below_single_precision_counts_as_constant():
    rng = np.random.default_rng(0)
    rows = TRAIN.copy()
    rows[:, 6] = 5 * (1 + 1e-7 * rng.normal(size=600))
    assert "all.constant" not in fitted("ridge", rows).summary["used_features"]
    rows[:, 6] = 5 * (1 + 1e-3 * rng.normal(size=600))
    assert "all.constant" in fitted("ridge", rows).summary["used_features"]


def test_a_mean_that_is_rounding_noise_is_not_read():
    """All derivatives of a softmax layer add up to zero: their mean has no digit that two runtimes agree on."""
    rng = np.random.default_rng(0)
    names = ("fc.mean", "fc.std", "fc.skewness", "residual")
    noise = rng.normal(size=(600, 2))
    for size, read in ((1e-8, False), (1e-3, True)):
        rows = np.stack([TRAIN[:, 8] * noise[:, 0] * size, TRAIN[:, 8], noise[:, 1] * size, TRAIN[:, 8]], 1)
        used = fitted("ridge", rows, names=names).summary["used_features"]
        assert ("fc.mean" in used, "fc.skewness" in used) == (read, read)


def test_a_verdict_of_nothing_but_rounding_noise_is_refused_by_name():
    names, noise = ("fc.mean", "fc.std", "fc.skewness"), 1e-8 * np.random.default_rng(0).normal(size=(600, 2))
    rows = np.stack([TRAIN[:, 8] * noise[:, 0], TRAIN[:, 8], noise[:, 1]], 1)
    for select, named in ((("fc.mean",), "fc.mean"), (("*.mean", "*.skewness"), "fc.mean, fc.skewness")):
        with pytest.raises(InputError, match=rf"zero except for rounding noise in every row: {named}; .*--features"):
            fitted("ridge", rows, names=names, select=select)


# ---------------------------------------------------------------- files


def test_files_are_never_overwritten_unasked(tmp_path, verdict):
    path = tmp_path / "verdict.onnx"
    verdict.save(path)
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        fitted("ridge").save(path)
    assert path.read_bytes() == before
    fitted("ridge").save(path, overwrite=True)
    assert Verdict.load(path).method == "ridge"
    assert [entry.name for entry in tmp_path.iterdir()] == ["verdict.onnx"]


def test_a_saved_verdict_is_whole(tmp_path, verdict):
    path = tmp_path / "verdict.onnx"
    verdict.save(path)
    again = Verdict.load(path)
    for name in ("feature_names", "model_fingerprint", "method", "threshold", "summary"):
        assert getattr(again, name) == getattr(verdict, name)
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} == {""}
    assert [opset.domain for opset in model.opset_import] == [""]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == [
        "features", "p_correct", "p_right", "p_known"
    ]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_to_the_operators_and_loads(tmp_path, method):
    found = fitted(method, folds=0)
    assert {node.op_type for node in found.proto.graph.node} <= emitter.OPERATORS
    found.save(tmp_path / "v.onnx")
    Verdict.load(tmp_path / "v.onnx")


def weight(model):
    values = numpy_helper.to_array(model.graph.initializer[1]) * 1.001
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(values, model.graph.initializer[1].name))


def metadata(**changes):
    def change(model):
        kept = json.loads(model.metadata_props[0].value)
        model.metadata_props[0].value = json.dumps({**kept, **changes})

    return change


def external(model):
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="../secret")


def other_domain(model):
    model.graph.node[0].domain = "com.microsoft"


def other_operator(model):
    model.graph.node[1].op_type = "Neg"


def nested_graph(model):
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node[1].attribute.append(helper.make_attribute("body", inner))


def float_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def second_output(model):
    model.graph.output.append(helper.make_tensor_value_info("constant_1", TensorProto.DOUBLE, None))


def broken_graph(model):
    model.graph.node[1].input[0] = "nowhere"


def function(model):
    model.functions.add(name="f", domain="")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (weight, "changed after it was written"),
        (metadata(threshold=0.01), "changed after it was written"),
        (metadata(threshold=None), "no decision threshold"),
        (metadata(threshold=float("nan")), "no decision threshold"),
        (metadata(feature_names=["a"]), r"its input is .* not {'features': \('N', 1\)}"),
        (metadata(feature_names=[]), "no feature names"),
        (metadata(model_fingerprint=1), "no model fingerprint"),
        (metadata(summary=None), "no training summary"),
        (metadata(kind="scoring"), "is a scoring, not a verdict"),
        (metadata(schema_version=9), "verdict schema 9; this gradscore reads 2"),
        (external, "weights are in another file"),
        (other_domain, "operator domains"),
        (other_operator, "it uses the operator Neg"),
        (nested_graph, "an attribute that is not a number"),
        (float_input, "double precision"),
        (second_output, "its output is"),
        (broken_graph, "graph is invalid"),
        (function, "functions"),
    ],
)
def test_a_tampered_verdict_is_refused(tmp_path, verdict, change, message):
    path = tmp_path / "verdict.onnx"
    verdict.save(path)
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=message):
        Verdict.load(path)


def test_files_that_are_no_verdict(tmp_path, verdict, monkeypatch):
    with pytest.raises(ModelError, match="no such verdict"):
        Verdict.load(tmp_path / "none.onnx")
    path = tmp_path / "verdict.onnx"
    path.write_text("not an onnx file")
    with pytest.raises(ModelError, match="not an ONNX file"):
        Verdict.load(path)
    verdict.save(path, overwrite=True)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not an ONNX file"):
        Verdict.load(path)
    foreign = helper.make_model(helper.make_graph([], "g", [], []))
    path.write_bytes(foreign.SerializeToString())
    with pytest.raises(ModelError, match="is another model, not a verdict"):
        Verdict.load(path)
    helper.set_model_props(foreign, {"gradscore": "{"})
    path.write_bytes(foreign.SerializeToString())
    with pytest.raises(ModelError, match="not JSON"):
        Verdict.load(path)
    verdict.save(path, overwrite=True)
    monkeypatch.setattr("gradscore.verdict.saving.LARGEST_FILE", 100)
    with pytest.raises(ModelError, match=r"bytes; a verdict has at most 100"):
        Verdict.load(path)
