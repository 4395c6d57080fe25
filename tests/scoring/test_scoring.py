"""Scores against the oracle: every feature of several classifiers, for any batch and any confidence."""

import numpy as np
import pytest
import torch

from gradscore import InputError, ModelError, RuntimeUnavailableError, Scorer
from gradscore.runtime.session import SignalSession
from models.digits_cnn import DigitsCNN
from models.mlp import MLP
from models.paper_cnn import PaperCNN
from tests.support import oracle


class BareBranchingCNN(torch.nn.Module):
    """Residual addition, strides, padding, groups, average pools and sigmoid."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(2, 8, 3, stride=2, padding=1)
        self.left = torch.nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.right = torch.nn.Conv2d(8, 8, 3, padding=2, dilation=2, bias=False)
        self.head = torch.nn.Linear(8, 6)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.sigmoid(self.left(x)) + torch.tanh(self.right(x))
        x = torch.nn.functional.avg_pool2d(x, 3, stride=2, padding=1)
        x = torch.nn.functional.max_pool2d(x, 3, stride=1, padding=1)
        return self.head(torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class BranchingCNN(BareBranchingCNN):
    """The same, ending in the softmax that `prepare` strips."""

    def forward(self, x):
        return torch.softmax(super().forward(x), dim=1)


class TokenMixer(torch.nn.Module):
    """Dense layers over positions: MatMul + Add on [B, T, n]."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Linear(6, 12)
        self.mix = torch.nn.Linear(12, 12)
        self.head = torch.nn.Linear(12, 4)

    def forward(self, x):
        return self.head(torch.tanh(self.mix(torch.relu(self.embed(x)))).mean(dim=1))


CASES = {
    "paper": (PaperCNN, (1, 28, 28)),
    "digits": (DigitsCNN, (1, 8, 8)),
    "mlp": (MLP, (20,)),
    "branching": (BranchingCNN, (2, 13, 11)),
    "tokens": (TokenMixer, (9, 6)),
}
RTOL = 1e-4


def build(name):
    factory, shape = CASES[name]
    torch.manual_seed(3)
    return factory().eval(), shape


def logits_of(module):
    """Return the module without its final softmax, because the oracle starts at logits."""
    if not isinstance(module, BranchingCNN):
        return module
    bare = BareBranchingCNN()
    bare.load_state_dict(module.state_dict())
    return bare


def scorer_for(name, prepared, **options):
    module, shape = build(name)
    return module, shape, Scorer.load(prepared(name, module, torch.zeros(2, *shape)), **options)


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("name", CASES)
def test_every_feature_equals_the_oracle(name, batch, prepared, rng):
    module, shape, scorer = scorer_for(name, prepared)
    inputs = rng.standard_normal((batch, *shape)).astype(np.float32)
    scores = scorer.score(inputs)
    for row in sorted({0, batch // 2, batch - 1}):
        label, expected = oracle.features_of(logits_of(module), inputs[row])
        assert scores.label[row] == label
        actual = dict(zip(scores.feature_names, scores.features[row], strict=True))
        oracle.assert_features(actual, expected, rtol=RTOL, context=f"{name} row {row}")


@pytest.mark.parametrize("name", CASES)
def test_rows_of_a_batch_equal_single_rows(name, prepared, rng):
    _, shape, scorer = scorer_for(name, prepared)
    inputs = rng.standard_normal((64, *shape)).astype(np.float32)
    whole = scorer.score(inputs)
    for row in (0, 31, 32, 63):
        single = scorer.score(inputs[row : row + 1])
        assert single.label[0] == whole.label[row]
        np.testing.assert_allclose(single.features[0], whole.features[row], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("exponent", [-6, -12, -20, -30])
def test_confident_predictions_keep_their_order_and_shape(exponent, prepared, rng):
    """A scaled last layer makes predictions more confident. Their norms must neither vanish nor tie."""
    module, shape = build("paper")
    inputs = rng.standard_normal((8, *shape)).astype(np.float32)
    with torch.no_grad():
        logits = module(torch.from_numpy(inputs))
        top = logits.topk(2).values
        scale = -exponent * np.log(10) / float((top[:, 0] - top[:, 1]).median())
        module.fc.weight *= scale
        module.fc.bias *= scale
    scorer = Scorer.load(prepared(f"paper-confident-{-exponent}", module, torch.zeros(2, *shape)))
    scores = scorer.score(inputs)
    expected = [oracle.features_of(module, sample)[1] for sample in inputs]
    residuals = np.array([row["residual"] for row in expected])
    assert residuals.min() < 10.0 ** (exponent + 1)
    np.testing.assert_allclose(scores.residual, residuals, rtol=1e-3)
    norms = scores["all.l2"]
    assert (norms > 0).all()
    assert np.array_equal(np.argsort(norms), np.argsort([row["all.l2"] for row in expected]))
    for row, wanted in enumerate(expected):
        actual = dict(zip(scores.feature_names, scores.features[row], strict=True))
        oracle.assert_features(actual, wanted, rtol=1e-3, context=f"1e{exponent} row {row}")


def test_nan_input_stays_in_its_row(prepared, rng):
    _, shape, scorer = scorer_for("paper", prepared)
    inputs = rng.standard_normal((5, *shape)).astype(np.float32)
    clean = scorer.score(inputs)
    inputs[2, 0, 3, 3] = np.nan
    scores = scorer.score(inputs)
    assert np.isnan(scores["all.l2"][2])
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(scores.features[others], clean.features[others])


@pytest.mark.parametrize("backend", ["native", "numba", "reference"])
def test_back_ends_agree(backend, prepared, rng):
    import gradscore_kernels as kernels

    if backend not in kernels.available_backends():
        pytest.skip(f"kernel back end {backend} is not installed")
    for name in CASES:
        _, shape, scorer = scorer_for(name, prepared, backend=backend)
        inputs = rng.standard_normal((5, *shape)).astype(np.float32)
        reference = Scorer.load(prepared(name, None, None), backend="reference").score(inputs)
        found = scorer.score(inputs).features
        # Skewness and kurtosis are of order one, and the native back end sums their powers in single precision.
        of_powers = np.array([name.endswith(("skewness", "kurtosis")) for name in scorer.feature_names])
        for columns, absolute in ((~of_powers, 2e-7), (of_powers, 1e-6)):
            expected = reference.features[:, columns]
            np.testing.assert_allclose(found[:, columns], expected, rtol=2e-5, atol=absolute)


def test_threads_change_nothing(prepared, rng):
    _, shape, _ = scorer_for("paper", prepared)
    path = prepared("paper", None, None)
    inputs = rng.standard_normal((70, *shape)).astype(np.float32)
    one, two = (Scorer.load(path, threads=threads).score(inputs) for threads in (1, 2))
    np.testing.assert_array_equal(one.label, two.label)
    np.testing.assert_allclose(one.features, two.features, rtol=1e-6, atol=1e-9)


def test_a_device_is_given_the_same_number_of_rows_as_before(prepared, rng, monkeypatch):
    _, shape, scorer = scorer_for("paper", prepared)
    inputs = rng.standard_normal((300, *shape)).astype(np.float32)
    expected, seen = scorer.score(inputs), []
    run = SignalSession.run

    def counted(session, batch):
        seen.extend(len(rows) for rows in batch.values())
        return run(session, batch)

    monkeypatch.setattr(SignalSession, "providers", ("CUDAExecutionProvider",))
    for name in ("run", "run_alone"):
        monkeypatch.setattr(SignalSession, name, counted)
    device = Scorer.load(prepared("paper", None, None), backend=scorer.backend)
    for samples in (3, 300, 5):
        found = device.score(inputs[:samples])
        np.testing.assert_array_equal(found.label, expected.label[:samples])
        np.testing.assert_allclose(found.features, expected.features[:samples], rtol=1e-5, atol=1e-6)
    assert seen == [4, 128, 128, 128, 128]
    assert len(device.score(inputs[:0])) == 0


@pytest.mark.parametrize("failing", ["first", "last"])
def test_what_fails_in_one_thread_is_raised_once_all_have_ended(failing, prepared, rng, monkeypatch):
    _, shape, scorer = scorer_for("paper", prepared, threads=2)
    batch, computation = rng.random((300, *shape), dtype=np.float32), scorer._computation
    with scorer:
        expected, fill, running = scorer.score(batch).features, computation._fill, []
        start = 0 if failing == "first" else computation._pieces(len(batch))[-1].start

        def fails_once(inputs, scores, piece, *, threads):
            running.append(piece)
            fill(inputs, scores, piece, threads=threads)
            if piece.start == start:
                raise MemoryError("no room")
            running.remove(piece)

        monkeypatch.setattr(computation, "_fill", fails_once)
        with pytest.raises(MemoryError, match="no room"):
            scorer.score(batch)
        assert [piece.start for piece in running] == [start]
        monkeypatch.undo()
        np.testing.assert_array_equal(scorer.score(batch).features, expected)


def test_empty_batch(prepared):
    _, shape, scorer = scorer_for("paper", prepared)
    scores = scorer.score(np.empty((0, *shape), dtype=np.float32))
    assert len(scores) == 0
    assert scores.features.shape == (0, len(scorer.feature_names))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            np.zeros((2, 1, 27, 28), dtype=np.float32),
            r"shape \[2, 1, 27, 28\] does not fit the model's input \[B, 1, 28, 28\]",
        ),
        (np.zeros((2, 1, 28, 28), dtype=np.int64), "type int64 is not an input"),
        (np.zeros((1, 28), dtype=np.float32), "does not fit"),
    ],
)
def test_wrong_input_is_refused(batch, message, prepared):
    _, _, scorer = scorer_for("paper", prepared)
    with pytest.raises(InputError, match=message):
        scorer.score(batch)


def test_uint8_and_float_agree(prepared, rng):
    _, shape, scorer = scorer_for("paper", prepared)
    pixels = rng.integers(0, 256, (4, *shape), dtype=np.uint8)
    by_hand = scorer.score(pixels.astype(np.float32) / np.float32(255))
    np.testing.assert_allclose(scorer.score(pixels).features, by_hand.features, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(scorer.score(pixels[:, 0]).features, scorer.score(pixels).features)


def test_missing_backend_and_provider_are_errors(prepared):
    path = scorer_for("mlp", prepared) and prepared("mlp", None, None)
    with pytest.raises(RuntimeUnavailableError, match="--backend"):
        Scorer.load(path, backend="abacus")
    with pytest.raises(
        RuntimeUnavailableError, match="provider CUDAExecutionProvider is not in the installed onnxruntime"
    ):
        Scorer.load(path, providers=["CUDAExecutionProvider"])


def test_a_plain_classifier_is_not_a_scoring_model(prepared, tmp_path):
    scorer_for("mlp", prepared)
    plain = prepared("mlp", None, None).with_name("mlp.onnx")
    with pytest.raises(ModelError, match="gradscore prepare"):
        Scorer.load(plain)
    with pytest.raises(ModelError, match="no such file"):
        Scorer.load(tmp_path / "absent.onnx")
