"""Extra features against torch in float64, and in tables, verdicts, comparisons and the command line."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from gradscore import InputError, MismatchError, ModelError, Scorer, ScoreTable, Verdict, explain, open_source, report
from gradscore.comparing.cases import collect
from gradscore.comparing.comparison import compare
from gradscore.metrics.evaluation import evaluate
from gradscore.report import feature_figures, page
from gradscore.runs.scoring_run import run_identity, score_to_parquet
from gradscore.scoring.extra_features import EXTRA_FEATURES
from gradscore.scoring.logit_scores import energy, margin, max_logit
from gradscore.unknowns.synthesis import score_unknowns
from models.digits_cnn import DigitsCNN
from tests.scoring.test_scoring import CASES, build
from tests.support import oracle
from tests.support.zoo import Shared, UNet

LOGIT_SCORES = ("max_logit", "energy", "margin")
RTOL = 1e-5


def double(module):
    return copy.deepcopy(module).double().eval()


def logits_of(module, sample):
    with torch.no_grad():
        return double(module)(torch.as_tensor(sample)[None].double())[0]


def expected_gradnorm(module, weight, sample):
    """Return the L1 norm of the gradient of KL(uniform ‖ softmax) with respect to one weight, by autograd."""
    exact = double(module)
    logits = exact(torch.as_tensor(sample)[None].double())
    uniform = torch.full_like(logits, 1 / logits.shape[1])
    loss = nn.functional.kl_div(torch.log_softmax(logits, 1), uniform, reduction="sum")
    return float(torch.autograd.grad(loss, dict(exact.named_parameters())[weight])[0].abs().sum())


def expected_activations(module, sample):
    """Return the eight statistics of each layer's input, by the layer's name."""
    exact, seen, hooks = double(module), {}, []
    for name in oracle.layers_of(exact):
        keep = lambda _, given, name=name: seen.setdefault(name, []).append(given[0].detach().numpy().ravel())  # noqa: E731
        hooks.append(exact.get_submodule(name).register_forward_pre_hook(keep))
    with torch.no_grad():
        exact(torch.as_tensor(sample)[None].double())
    return {name: oracle.statistics(np.concatenate(parts)) for name, parts in seen.items()}


def assert_activations(scorer, module, inputs, layers):
    scores = scorer.score(inputs)
    names = [name for name in scores.feature_names if ".activation." in name]
    assert names == [
        f"{layer}.activation.{statistic}" for layer in layers for statistic in oracle.statistics(np.ones(2))
    ]
    for row, sample in enumerate(inputs):
        wanted = expected_activations(module, sample)
        flat = {f"{layer}.{key}": value for layer in layers for key, value in wanted[layer].items()}
        found = {name.replace(".activation", ""): scores[name][row] for name in names}
        oracle.assert_features(found, flat, rtol=1e-4)


def loaded(name, prepared, *features):
    module, shape = build(name)
    return module, shape, Scorer.load(prepared(name, module, torch.zeros(2, *shape)), features=features)


@pytest.mark.parametrize("name", [name for name in CASES if name != "branching"])
def test_scores_of_the_logits_and_gradnorm_equal_torch(name, prepared, rng):
    module, shape, scorer = loaded(name, prepared, "gradnorm", *LOGIT_SCORES)
    inputs = 3 * rng.standard_normal((5, *shape)).astype(np.float32)
    scores = scorer.score(inputs)
    assert scores.feature_names[-5:] == ("residual", *LOGIT_SCORES, "gradnorm")
    weight = [key for key in dict(module.named_parameters()) if key.endswith("weight")][-1]
    for row, sample in enumerate(inputs):
        logits = logits_of(module, sample)
        top = torch.topk(logits, 2).values
        assert scores["max_logit"][row] == pytest.approx(float(top[0]), rel=RTOL)
        assert scores["energy"][row] == pytest.approx(float(torch.logsumexp(logits, 0)), rel=RTOL)
        assert scores["margin"][row] == pytest.approx(float(top[0] - top[1]), abs=RTOL * float(logits.abs().max()))
        assert scores["gradnorm"][row] == pytest.approx(expected_gradnorm(module, weight, sample), rel=RTOL)


@pytest.mark.parametrize("backend", ["auto", "graph"])
def test_logits_are_those_of_the_model(backend, prepared, rng):
    module, shape, _ = loaded("digits", prepared)
    scorer = Scorer.load(prepared("digits", None, None), features=["logits"], backend=backend)
    inputs = rng.standard_normal((4, *shape)).astype(np.float32)
    scores = scorer.score(inputs)
    assert scores.feature_names[-10:] == tuple(f"logits.{index}" for index in range(10))
    wanted = np.stack([logits_of(module, sample).numpy() for sample in inputs])
    np.testing.assert_allclose(scores.features[:, -10:], wanted, rtol=RTOL, atol=RTOL)


def test_the_paper_s_own_form_of_gradnorm(prepared, rng):
    """Σ|x| times the mean over the classes of |1 − q·p| (Huang, Geng and Li 2021, equations 7 to 9)."""
    module, shape, scorer = loaded("digits", prepared, "gradnorm")
    inputs = rng.standard_normal((4, *shape)).astype(np.float32)
    kept = []
    exact = double(module)
    exact.fc2.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    with torch.no_grad():
        p = torch.softmax(exact(torch.from_numpy(inputs).double()), 1)
    wanted = kept[0].abs().sum(1) * (1 - 10 * p).abs().mean(1)
    np.testing.assert_allclose(scorer.score(inputs)["gradnorm"], wanted.numpy(), rtol=RTOL)


@pytest.mark.parametrize("name", CASES)
def test_activations_equal_torch(name, prepared, rng):
    module, shape, scorer = loaded(name, prepared, "activations")
    inputs = rng.standard_normal((3, *shape)).astype(np.float32)
    assert_activations(scorer, module, inputs, [layer.name for layer in scorer.metadata.layers])


@pytest.mark.parametrize(
    ("factory", "shape", "without"),
    [(UNet, (1, 8, 8), ()), (Shared, (7,), ()), (lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)), (6,), ("1",))],
    ids=["transposed", "shared", "norm"],
)  # fmt: skip
def test_activations_of_other_layers(factory, shape, without, prepared, rng):
    torch.manual_seed(0)
    module = factory().eval()
    path = prepared(f"activations-{len(shape)}-{without}", module, torch.zeros(2, *shape))
    scorer = Scorer.load(path, features=["activations"])
    layers = [layer.name for layer in scorer.metadata.layers if layer.name not in without]
    assert_activations(scorer, module, rng.standard_normal((3, *shape)).astype(np.float32), layers)


def test_token_ids_are_no_activations(prepared):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.Linear(24, 3)).eval()
    path = prepared("extras-tokens", module, torch.ones(2, 6, dtype=torch.int64))
    scores = Scorer.load(path, features=["activations", "gradnorm"]).score(np.arange(12).reshape(2, 6))
    assert {name.partition(".activation.")[0] for name in scores.feature_names if ".activation." in name} == {"2"}
    assert scores.feature_names[26:28] == ("residual", "gradnorm")
    assert np.isfinite(scores.features).all()


def test_logits_in_closed_form():
    logits, labels = np.array([[1000.0, 999.0, -1000.0], [-3.0, -3.0, -3.0]]), np.array([0, 0])
    np.testing.assert_array_equal(max_logit(logits, labels), [1000, -3])
    np.testing.assert_allclose(energy(logits, labels), [1000 + np.log1p(np.exp(-1)), np.log(3) - 3], rtol=1e-15)
    np.testing.assert_array_equal(margin(logits, labels), [1, 0])


def test_a_nan_stays_in_its_row(prepared, rng):
    _, shape, scorer = loaded("digits", prepared, *EXTRA_FEATURES)
    inputs = rng.standard_normal((4, *shape)).astype(np.float32)
    clean = scorer.score(inputs)
    inputs[1] = np.nan
    scores = scorer.score(inputs)
    assert np.isnan(scores.features[1]).all()
    np.testing.assert_array_equal(scores.features[[0, 2, 3]], clean.features[[0, 2, 3]])


def test_the_order_asked_for_changes_nothing_and_the_rest_stays(prepared, rng):
    _, shape, scorer = loaded("digits", prepared, "gradnorm", "energy", "energy")
    path = prepared("digits", None, None)
    plain, other = Scorer.load(path), Scorer.load(path, features=["energy", "gradnorm"])
    inputs = rng.standard_normal((70, *shape)).astype(np.float32)
    scores = scorer.score(inputs)
    assert scorer.extra_features == other.extra_features == ("energy", "gradnorm")
    assert scorer.feature_names == (*plain.feature_names, "energy", "gradnorm")
    np.testing.assert_array_equal(scores.features, other.score(inputs).features)
    np.testing.assert_array_equal(scores.features[:, :-2], plain.score(inputs).features)
    assert scorer.score(inputs[:0]).features.shape == (0, len(scorer.feature_names))


class PixelHead(nn.Module):
    """Logits that a convolution makes, averaged over the positions."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(1, 3, 3)

    def forward(self, x):
        return self.head(x).mean((2, 3))


class TwoHeads(nn.Module):
    """Logits that are a sum of two dense layers."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x):
        return self.one(x) + self.two(torch.relu(x))


SIGMOID = nn.Sequential(nn.Linear(5, 1), nn.Sigmoid())


@pytest.mark.parametrize(
    ("module", "shape"), [(PixelHead(), (1, 6, 6)), (TwoHeads(), (5,)), (SIGMOID, (5,))], ids=["conv", "two", "sigmoid"]
)
def test_gradnorm_is_refused_where_no_single_dense_layer_makes_the_logits(module, shape, prepared):
    path = prepared(f"no-gradnorm-{type(module).__name__}", module.eval(), torch.zeros(2, *shape))
    Scorer.load(path, features=["energy"])
    with pytest.raises(
        ModelError, match=r"gradnorm .* one dense layer, at one position.*Leave gradnorm out of --features"
    ):
        Scorer.load(path, features=["gradnorm"])


def test_impossible_features_are_refused_at_loading(prepared, monkeypatch):
    path = loaded("digits", prepared)[2] and prepared("digits", None, None)
    with pytest.raises(
        InputError,
        match="no extra feature 'odin': --features takes recommended, max_logit, energy, margin, gradnorm, act",
    ):
        Scorer.load(path, features=["energy", "odin"])
    assert Scorer.load(path, backend="graph", features=["energy", "gradnorm"]).feature_names[-1] == "gradnorm"
    monkeypatch.setattr("gradscore.scoring.backends.GraphBackend.computes", frozenset())
    with pytest.raises(InputError, match=r"gradnorm needs the inputs of layers.*leave it out of --features.*--backend"):
        Scorer.load(path, backend="graph", features=["energy", "gradnorm"])


@pytest.fixture(scope="module")
def tables(prepared, tmp_path_factory):
    """Return tables with all extra features: of digits in two classes with some mistakes, and of noise."""
    torch.manual_seed(0)
    path, folder = prepared("extras", DigitsCNN().eval(), torch.zeros(2, 1, 8, 8)), tmp_path_factory.mktemp("extras")
    rng = np.random.default_rng(0)
    np.savez(folder / "known.npz", images=rng.integers(0, 256, (120, 8, 8), dtype=np.uint8))
    scorer = Scorer.load(path, features=list(EXTRA_FEATURES))
    source = open_source([folder / "known.npz"])
    score_to_parquet(scorer, source, folder / "known.parquet")
    known = ScoreTable.read(folder / "known.parquet")
    predicted = known.labels()
    truth = np.where(np.arange(120) % 3 == 0, (predicted + 1) % 10, predicted)
    lines = [f"{name},{label}" for name, label in zip(known.ids(), truth, strict=True)]
    (folder / "labels.csv").write_text("id,label\n" + "\n".join(lines))
    return path, folder, scorer, source, known


def test_tables_name_their_features_and_noise_is_scored_with_them(tables):
    path, folder, scorer, _, known = tables
    assert known.extra_features == tuple(EXTRA_FEATURES)
    assert known.feature_names == scorer.feature_names
    noise = score_unknowns(scorer, "uniform", 60)
    cases = collect(known, {"noise": noise}, label_file=folder / "labels.csv")
    assert len(cases) == 180
    with pytest.raises(MismatchError, match=r"unknown table noise has .*'max_logit' against nothing"):
        collect(known, {"noise": score_unknowns(Scorer.load(path), "uniform", 60)}, label_file=folder / "labels.csv")


def test_a_run_is_not_continued_with_other_features(tables, tmp_path):
    path, _, scorer, source, _ = tables
    assert run_identity(scorer, source, 256)["extra features"] == list(EXTRA_FEATURES)
    score_to_parquet(Scorer.load(path, features=["energy"]), source, tmp_path / "out", resume=True)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (tmp_path / "out" / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    with pytest.raises(MismatchError, match=r'extra features was \["energy"\], is now \["margin"\]'):
        score_to_parquet(Scorer.load(path, features=["margin"]), source, tmp_path / "out", resume=True)


def test_the_report_shows_and_defines_them(tables):
    _, folder, _, _, known = tables
    content = report.build(collect(known, label_file=folder / "labels.csv"), {}, resamples=0)
    html = page.render(content, {}, {}, {}, title="t", left_layers=0)
    for name in (*LOGIT_SCORES, "gradnorm"):
        assert f"<dt>{name}</dt>" in html
        assert content.separation[name] == content.comparison[name].pooled.auroc
        assert f"{100 * content.separation[name]:.2f}" in html
    assert "<dt>Activations</dt>" in html
    layers = ("conv1", "conv2", "fc1", "fc2")
    assert feature_figures.layer_names(content) == [*layers, "all", *(f"{name}.activation" for name in layers)]


def test_verdicts_and_comparisons_take_them(tables):
    _, folder, scorer, _, known = tables
    cases = collect(known, {"noise": score_unknowns(scorer, "uniform", 60)}, label_file=folder / "labels.csv")
    verdict = Verdict.fit(
        cases.features, cases.correct, feature_names=known.feature_names, model_fingerprint=known.model_fingerprint,
        method="lasso", select=["energy", "*.activation.l2"], folds=0,
    )  # fmt: skip
    assert set(verdict.summary["used_features"]) <= {
        "energy",
        *(f"{n}.activation.l2" for n in ("conv1", "conv2", "fc1", "fc2")),
    }
    found = compare(cases, {"mine": verdict}, resamples=20)
    assert list(found) == ["max_softmax", "entropy", "max_logit", "energy", "margin", "gradnorm", "mine"]
    for name in ("max_logit", "energy", "margin", "gradnorm"):
        column = cases.features[:, known.feature_names.index(name)]
        assert found[name].pooled.auroc == evaluate(column, cases.correct).auroc
        assert found[name].pooled.ece is None
        assert "ece" not in found[name].groups["noise"].intervals
        assert "auroc" in found[name].groups["noise"].intervals
    assert found["mine"].pooled.ece is not None


def test_an_explanation_takes_the_numbers_of_a_vector_together(tables):
    _, folder, scorer, _, known = tables
    cases = collect(known, {"noise": score_unknowns(scorer, "uniform", 60)}, label_file=folder / "labels.csv")
    verdict = Verdict.fit(
        cases.features, cases.correct, feature_names=known.feature_names, model_fingerprint=known.model_fingerprint,
        select=["*.pooled.*", "logits.*", "fc1.activation.l2"], method="ridge", folds=0,
    )  # fmt: skip
    found = explain(verdict, cases.features, cases.correct, repeats=1)
    assert {one.name for one in found if one.kind == "statistic"} == {"pooled", "logits", "activation.l2"}
