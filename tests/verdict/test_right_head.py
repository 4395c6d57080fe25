"""The head that says whether a known input's prediction is right, against its objective and its formula."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logit
from sklearn.metrics import roc_auc_score

from gradscore.verdict.learning.heads.depths import gradient_columns
from gradscore.verdict.learning.heads.ridge_head import RidgeHead, sigmoid
from gradscore.verdict.learning.heads.right_head import PENALTY, SOFTMAX_SPREAD, RightHead
from tests.support.planted import extremes, rows, run, shuffled, useless

KNOWN = rows(kinds=0)
COLUMNS = np.r_[KNOWN.columns(("entropy", "residual")), gradient_columns(KNOWN.names)]


def test_a_head_minimises_its_objective():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 3))
    positive = z[:, 0] + rng.normal(size=200) > 0.5

    def objective(weights):
        margin = np.where(positive, 1, -1) * (z @ weights[:3] + weights[3])
        return np.logaddexp(0, -margin).mean() + 0.05 * (weights[:3] ** 2).sum() / 2

    best = minimize(objective, np.zeros(4), tol=1e-14)
    found = RidgeHead.fit(z, positive, 0.05)
    np.testing.assert_allclose([*found.weights, found.bias], best.x, atol=1e-6)
    np.testing.assert_allclose(found.shifted(0.7)(z), found(z) + 0.7, atol=1e-12)
    np.testing.assert_allclose(run(found.emit, z), found(z), atol=1e-12)


def test_a_head_without_scores_is_the_share():
    found = RidgeHead.fit(np.empty((8, 0)), np.arange(8) < 6, 0.1)
    np.testing.assert_allclose(sigmoid(found(np.empty((2, 0)))), 0.75)


def test_sigmoid_never_overflows():
    x = np.array([-1e308, -800.0, -40.0, 0.0, 40.0, 800.0, 1e308])
    np.testing.assert_allclose(sigmoid(x), [0, 0, np.exp(-40.0), 0.5, 1, 1, 1], atol=1e-17)


def test_log_odds_one_row_at_a_time():
    head = RightHead.fit(KNOWN, COLUMNS)
    residual = KNOWN.features[:, head.residual]
    spread = logit(1 - residual).std()
    for row in range(10):
        x = KNOWN.features[row]
        softmax = SOFTMAX_SPREAD / spread * (np.log1p(-x[head.residual]) - np.log(x[head.residual]))
        scores = head.scores(x[None])[0]
        expected = head.head.bias + head.head.weights[0] * softmax + scores @ head.head.weights[1:]
        np.testing.assert_allclose(head(x[None])[0], expected, rtol=1e-12)


def test_softmax_counts_and_useless_scores_do_not():
    """The penalty leaves the softmax free and holds back what does not help."""
    head = RightHead.fit(useless(KNOWN), COLUMNS)
    fresh = useless(rows(2000, 0, seed=7))
    softmax = roc_auc_score(fresh.right, -fresh.features[:, head.residual])
    assert PENALTY > 0
    assert roc_auc_score(fresh.right, head(fresh.features)) > softmax - 0.01


def test_residuals_that_round_to_one_stay_apart():
    head = RightHead.fit(KNOWN, COLUMNS)
    x = np.tile(KNOWN.features[:1], (4, 1))
    x[:, head.residual] = [1e-18, 1e-30, 1e-200, 0.0]
    alone = replace(head, head=RidgeHead(np.r_[1.0, np.zeros(len(head.scores.columns))], 0.0))
    assert (np.diff(alone(x)) > 0).all()


@pytest.mark.parametrize(
    "case", ["as they are", "shuffled", "useless", "constant softmax", "constant scores", "nothing"]
)
def test_onnx_gives_the_same(case):
    known = {"shuffled": shuffled, "useless": useless}.get(case, lambda same: same)(KNOWN)
    features = known.features.copy()
    if case in ("constant softmax", "nothing"):
        features[:, [known.names.index(name) for name in ("residual", "max_softmax", "entropy")]] = 0.5
    if case in ("constant scores", "nothing"):
        features[:, gradient_columns(known.names)] = 1.0
    known = replace(known, features=features)
    head = RightHead.fit(known, COLUMNS)
    fresh = np.vstack([rows(30, 1, 20, seed=3).features, extremes(100, len(known.names))])
    assert np.isfinite(head(fresh)).all()
    np.testing.assert_allclose(run(head.emit, fresh), head(fresh), rtol=1e-12, atol=1e-9)
    if case == "nothing":
        np.testing.assert_allclose(sigmoid(head(fresh)), known.right.mean(), atol=1e-3)
