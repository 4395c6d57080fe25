"""Head features against 60-digit arithmetic: exact for confident, tied and many classes."""

import gradscore_kernels as gk
import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

BACKENDS = [name for name in ("native", "numba") if name in gk.available_backends()]  # C++ and NumPy
RTOL = 1e-11  # relative: logits of 600 lose 600·2⁻⁵³ before the exponential
SUBNORMAL = np.finfo(np.float64).tiny  # below this, float64 has fewer digits


def exact(logits, label):
    """Return entropy divided by log q, maximum softmax and residual."""
    with mpmath.workdps(400):
        weights = [mpmath.exp(mpmath.mpf(float(score))) for score in logits]
        total = mpmath.fsum(weights)
        p = [weight / total for weight in weights]
        entropy = -mpmath.fsum(value * mpmath.log(value) for value in p if value) / mpmath.log(len(p))
        others = mpmath.fsum(weight for index, weight in enumerate(weights) if index != label)
        return float(entropy), float(p[label]), float(others / total)


def assert_exact(logits):
    labels = np.argmax(logits, axis=1)
    wanted = np.array([exact(row, label) for row, label in zip(logits, labels, strict=True)])
    for backend in BACKENDS:
        found = gk.softmax_features(logits, labels, backend=backend)
        np.testing.assert_allclose(found, wanted, rtol=RTOL, atol=SUBNORMAL)


logit = st.floats(-600, 600, width=32)


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 12).flatmap(lambda classes: st.lists(logit, min_size=classes, max_size=classes)))
@example([-365.0, 365.0])
@example([-371.0, 371.0, 370.5])
def test_any_logits(scores):
    assert_exact(np.array([scores], dtype=np.float32))


@pytest.mark.parametrize("margin", [0, 1e-6, 1, 17, 40, 100, 350, 600])
@pytest.mark.parametrize("classes", [2, 3, 1000])
def test_margins(margin, classes):
    logits = np.zeros((1, classes), dtype=np.float32)
    logits[0, classes // 2] = margin
    assert_exact(logits)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("classes", [2, 5, 1000])
def test_ties(classes, backend):
    found = gk.softmax_features(np.full((1, classes), 7.0), np.array([0]), backend=backend)
    np.testing.assert_allclose(found, [[1, 1 / classes, 1 - 1 / classes]], rtol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
def test_confident_rows_keep_their_order(backend):
    logits = np.zeros((700, 4), dtype=np.float32)
    logits[:, 2] = np.arange(700)
    entropy, _, residual = gk.softmax_features(logits, np.full(700, 2), backend=backend).T
    assert (residual > 0).all()
    assert (np.diff(residual) < 0).all()
    assert (np.diff(entropy) < 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_offset_changes_nothing(backend):
    logits, label = np.array([[3.0, 1.0, -2.0]]), np.array([0])
    moved, still = (gk.softmax_features(given, label, backend=backend) for given in (logits + 2.0**20, logits))
    np.testing.assert_allclose(moved, still, rtol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_masked_classes_count_for_nothing(backend):
    with_masked = gk.softmax_features(np.array([[2.0, 1.0, -np.inf]]), np.array([0]), backend=backend)
    without = gk.softmax_features(np.array([[2.0, 1.0]]), np.array([0]), backend=backend)
    np.testing.assert_allclose(with_masked, without * [np.log(2) / np.log(3), 1, 1], rtol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_row_stays_alone(bad, backend):
    logits, labels = np.array([[1.0, 2.0], [bad, 0.0], [3.0, -1.0]]), np.array([1, 0, 0])
    features = gk.softmax_features(logits, labels, backend=backend)
    good = gk.softmax_features(logits[[0, 2]], labels[[0, 2]], backend=backend)
    np.testing.assert_array_equal(features[[0, 2]], good)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("row", [[np.nan, 0.0, 1.0], [0.0, np.nan, -1.0]])
def test_nan_logits_give_nan(row, backend):
    assert np.isnan(gk.softmax_features(np.array([row]), np.array([0]), backend=backend)).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_rows(backend):
    assert gk.softmax_features(np.empty((0, 3)), np.empty(0, dtype=np.int64), backend=backend).shape == (0, 3)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [([[1.0, 2.0]], [2]), ([[1.0, 2.0]], [-1]), ([[1.0]], [0]), ([[1.0, 2.0]], [0, 1]), ([1.0], [0])],
)
def test_what_is_no_prediction_is_refused(logits, labels):
    with pytest.raises(gk.KernelError, match="softmax_features"):
        gk.softmax_features(np.array(logits), np.array(labels))
