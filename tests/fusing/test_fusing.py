"""Self-scoring models: the same numbers as kernels and verdict, in one file that runs without gradscore."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import quantization

from gradscore import (
    InputError,
    MismatchError,
    ModelError,
    OutputExistsError,
    Scorer,
    ScoreTable,
    Verdict,
    export_classifier,
    fuse,
    prepare,
)
from gradscore.preparing.inspection import inspect_model
from gradscore.runtime.session import open_session
from gradscore.verdict.learning.classifiers.methods import METHODS
from models.digits_cnn import DigitsCNN
from models.paper_cnn import PaperCNN
from tests.support import zoo

RTOL = 1e-4
NOISE = 1e-7
FAST = ("attention", "cnn_1d", "unet")
ADDED = ["label", "p_correct", "p_right", "p_known", "accept", "why", "entropy", "max_softmax", "residual"]


def batch_of(example, count):
    """`count` rows like the example's."""
    torch.manual_seed(count)
    rows = example.repeat(-(-count // len(example)), *[1] * (example.ndim - 1))[:count]
    if not example.is_floating_point():
        return rows[:, torch.randperm(rows.shape[1])].numpy()
    return (rows + 0.3 * torch.randn_like(rows)).numpy()


def run(path, rows, **options):
    session = open_session(path, threads=1, **options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: rows}), strict=True))


def assert_features(actual, scores):
    """Compare features with the kernels', each to RTOL of its scale: a layer's extrema and mean to its root mean square.

    A gradient ten million times smaller than the network's largest numbers is what rounding left of numbers that cancel:
    it need only be as small on both sides.
    """
    names = {name: column for column, name in enumerate(scores.feature_names)}

    def rms(features, layer):
        return np.hypot(*(features[:, names[f"{layer}.{key}"]] for key in ("mean", "std")))

    floor = NOISE * np.abs(scores.features[:, [names["all.min"], names["all.max"]]]).max(1)
    for name, column in names.items():
        layer, _, statistic = name.rpartition(".")
        expected = scores.features[:, column]
        scale = np.abs(expected)
        noise = rms(scores.features, layer) < floor if layer else np.zeros(len(actual), bool)
        if statistic in ("min", "max", "mean"):
            scale = np.maximum(scale, rms(scores.features, layer))
        if statistic in ("skewness", "kurtosis"):
            scale = np.maximum(scale, 1)
        error = np.abs(actual[:, column] - expected)
        assert ((error <= RTOL * scale) | noise).all(), f"{name}: {actual[:, column]} is not {expected}"
        assert not noise.any() or (rms(actual, layer)[noise] < 10 * floor[noise]).all(), name


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A digits classifier that ends in softmax, its scoring model, and pictures."""
    folder = tmp_path_factory.mktemp("digits")
    torch.manual_seed(5)
    module = torch.nn.Sequential(DigitsCNN(), torch.nn.Softmax(1)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
    export_classifier(module, torch.zeros(2, 1, 8, 8), folder / "c.onnx", class_names=[f"digit {n}" for n in range(10)])
    prepare(folder / "c.onnx", folder / "s.onnx")
    return folder, np.random.default_rng(3).random((300, 1, 8, 8), dtype=np.float32) * 4


def verdict_for(scorer, rows, *, method="lasso", select=None, **options):
    """A verdict about random but learnable outcomes."""
    scores = scorer.score(rows)
    outcome = np.log(scores["all.l2"]) + 0.5 * np.random.default_rng(1).standard_normal(len(scores))
    return Verdict.fit(
        scores.features, outcome < np.median(outcome), feature_names=scores.feature_names,
        model_fingerprint=scorer.fingerprint, method=method, select=select, **{"folds": 0, **options},
    )  # fmt: skip


def check_member(name, folder):
    """Features of one family at several batch sizes, with the runtime's optimiser off and on."""
    module, example = zoo.build(name)
    zoo.export(module, example, folder / "c.onnx", zoo.EXPORTERS.get(name, "dynamo"))
    prepare(folder / "c.onnx", folder / "s.onnx")
    metadata = fuse(folder / "s.onnx", folder / "f.onnx", features=["*"])
    scorer = Scorer.load(folder / "s.onnx")
    assert metadata.feature_names == scorer.feature_names
    for count in (1, 7, 64):
        rows = batch_of(example, count)
        scores, plain = scorer.score(rows), run(folder / "c.onnx", rows)
        for optimize in (True, False):
            found = run(folder / "f.onnx", rows, optimize=optimize)
            assert list(found) == [*plain, "label", "entropy", "max_softmax", "residual", "features"]
            for output, values in plain.items():
                assert found[output].dtype == values.dtype
                np.testing.assert_allclose(found[output], values, rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(found["label"], scores.label)
            assert_features(found["features"], scores)


@pytest.mark.parametrize("name", FAST)
def test_features_equal_the_kernels(name, tmp_path):
    check_member(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(zoo.ZOO) - set(FAST)))
def test_features_equal_the_kernels_for_the_rest(name, tmp_path):
    check_member(name, tmp_path)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        *((method, {}) for method in METHODS),
        ("threshold", {"calibration": "platt", "folds": 2}),
        ("threshold", {"transform": "quantile", "calibration": "isotonic", "folds": 2}),
    ],
    ids=[*METHODS, "platt", "quantile"],
)
def test_p_correct_equals_apply(digits, tmp_path, method, options):
    folder, rows = digits
    scorer = Scorer.load(folder / "s.onnx")
    verdict = verdict_for(scorer, rows, method=method, **options)
    metadata = fuse(folder / "s.onnx", tmp_path / "f.onnx", verdict=verdict, features=["*"])
    found = run(tmp_path / "f.onnx", rows)
    assert list(found) == [*metadata.outputs, *ADDED, "features"]
    assert (found["p_correct"].dtype, found["accept"].dtype) == (np.float32, np.bool_)
    np.testing.assert_allclose(found["p_correct"], verdict.apply(found["features"]), atol=1e-5)
    expected = verdict.apply(scorer.score(rows).features)
    np.testing.assert_allclose(found["p_correct"], expected, atol=1e-5)
    sure = np.abs(expected - verdict.threshold) > 1e-5
    np.testing.assert_array_equal(found["accept"][sure], (expected >= verdict.threshold)[sure])
    np.testing.assert_allclose(found["entropy"], scorer.score(rows).entropy, rtol=1e-6)


def test_a_verdict_may_read_scores_of_the_logits(digits, tmp_path):
    folder, rows = digits
    scorer = Scorer.load(folder / "s.onnx", features=["max_logit", "energy", "margin", "gradnorm"])
    verdict = verdict_for(scorer, rows, method="ridge", select=["max_logit", "energy", "margin", "gradnorm", "all.l2"])
    fuse(folder / "s.onnx", tmp_path / "f.onnx", verdict=verdict)
    expected = verdict.apply(scorer.score(rows).features)
    np.testing.assert_allclose(run(tmp_path / "f.onnx", rows)["p_correct"], expected, atol=1e-5)


def test_only_what_the_verdict_reads_is_computed(digits, tmp_path):
    folder, rows = digits
    scorer = Scorer.load(folder / "s.onnx")
    verdict = verdict_for(scorer, rows, select=["*fc2.*"])
    metadata = fuse(folder / "s.onnx", tmp_path / "few.onnx", verdict=verdict)
    fuse(folder / "s.onnx", tmp_path / "all.onnx", features=["*"])
    assert set(metadata.used_features) == {*verdict.summary["used_features"], "residual"}  # P(right) is the softmax's
    few, whole = (onnx.load(tmp_path / name).graph.node for name in ("few.onnx", "all.onnx"))
    assert len(few) < 0.7 * len(whole)
    gradients = [node for node in few if node.op_type in ("Conv", "ConvTranspose", "ScatterElements")]
    assert len(gradients) == 2, "the forward convolutions alone: nothing is back-propagated below the dense layer"
    np.testing.assert_allclose(
        run(tmp_path / "few.onnx", rows)["p_correct"], verdict.apply(scorer.score(rows).features), atol=1e-5
    )


@pytest.mark.parametrize("exponent", [-6, -30])
def test_confident_predictions_keep_their_features(exponent, prepared, tmp_path, rng):
    torch.manual_seed(3)
    module = PaperCNN().eval()
    inputs = rng.standard_normal((8, 1, 28, 28)).astype(np.float32)
    with torch.no_grad():
        top = module(torch.from_numpy(inputs)).topk(2).values
        factor = -exponent * np.log(10) / float((top[:, 0] - top[:, 1]).median())
        module.fc.weight *= factor
        module.fc.bias *= factor
    path = prepared(f"paper-fused{exponent}", module, torch.zeros(2, 1, 28, 28))
    fuse(path, tmp_path / "f.onnx", features=["*"])
    found, scores = run(tmp_path / "f.onnx", inputs), Scorer.load(path).score(inputs)
    assert scores.residual.min() < 10.0 ** (exponent + 1)
    within = scores.residual > 1e-36  # below, single precision loses digits and then underflows
    assert within.sum() > 3
    norms = found["features"][within, scores.feature_names.index("all.l2")]
    np.testing.assert_array_equal(np.argsort(norms), np.argsort(scores["all.l2"][within]))
    np.testing.assert_allclose(found["residual"][within], scores.residual[within], rtol=1e-5)
    np.testing.assert_allclose(found["entropy"][within], scores.entropy[within], rtol=1e-5)
    for name in ("conv2.l1", "conv2.max", "fc.std", "all.skewness", "all.kurtosis"):
        column = scores.feature_names.index(name)
        np.testing.assert_allclose(found["features"][within, column], scores.features[within, column], rtol=1e-3)


def test_nan_stays_in_its_row(digits, tmp_path):
    folder, rows = digits
    scorer = Scorer.load(folder / "s.onnx")
    fuse(folder / "s.onnx", tmp_path / "f.onnx", verdict=verdict_for(scorer, rows), features=["*"])
    clean, broken = run(tmp_path / "f.onnx", rows[:5]), rows[:5].copy()
    broken[2, 0, 3, 3] = np.nan
    found = run(tmp_path / "f.onnx", broken)
    others = [0, 1, 3, 4]
    for name in ("p_correct", "entropy", "features"):
        np.testing.assert_array_equal(found[name][others], clean[name][others])
        assert np.isnan(found[name][2]).all()
    assert not found["accept"][2]


@pytest.mark.parametrize(("differing", "refused"), [([["logits"], []], False), ([["logits"]] * 3, True)])
def test_a_model_is_refused_only_if_it_differs_at_every_input(differing, refused, digits, tmp_path, monkeypatch):
    folder, _ = digits
    draws = []

    def found(*given):
        draws.append(given[-2])
        return differing[len(draws) - 1]

    monkeypatch.setattr("gradscore.fusing.proof._differing", found)
    if refused:
        with pytest.raises(ModelError, match="'logits' differs from the scoring model's"):
            fuse(folder / "s.onnx", tmp_path / "f.onnx", features=["*"])
    else:
        fuse(folder / "s.onnx", tmp_path / "f.onnx", features=["*"])
    assert draws == list(range(len(differing)))
    assert (tmp_path / "f.onnx").exists() is not refused


def test_it_runs_without_gradscore(digits, tmp_path):
    folder, rows = digits
    verdict = verdict_for(Scorer.load(folder / "s.onnx"), rows)
    fuse(folder / "s.onnx", tmp_path / "f.onnx", verdict=verdict)
    np.save(tmp_path / "rows.npy", rows[:4])
    program = (
        "import sys; sys.modules.update(gradscore=None, gradscore_kernels=None)\n"
        "import numpy, onnxruntime\n"
        f"session = onnxruntime.InferenceSession({str(tmp_path / 'f.onnx')!r})\n"
        f"print(session.run(['p_correct'], {{'input': numpy.load({str(tmp_path / 'rows.npy')!r})}})[0].tolist())"
    )
    printed = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True).stdout
    np.testing.assert_allclose(json.loads(printed), run(tmp_path / "f.onnx", rows[:4])["p_correct"], rtol=1e-6)


def test_it_survives_being_saved_again(digits, tmp_path):
    folder, rows = digits
    fuse(folder / "s.onnx", tmp_path / "f.onnx", verdict=verdict_for(Scorer.load(folder / "s.onnx"), rows))
    model = onnx.load(tmp_path / "f.onnx")
    assert {entry.domain for entry in model.opset_import} == {""}
    assert {node.domain for node in model.graph.node} == {""}
    assert model.opset_import[0].version in (17, 18)
    onnx.save(onnx.shape_inference.infer_shapes(model, strict_mode=True), tmp_path / "again.onnx")
    onnx.checker.check_model(str(tmp_path / "again.onnx"), full_check=True)
    first, again = (run(tmp_path / name, rows[:3]) for name in ("f.onnx", "again.onnx"))
    for name, values in first.items():
        np.testing.assert_array_equal(again[name], values)
    report = inspect_model(tmp_path / "again.onnx")
    assert report["class_names"][3] == "digit 3"


def write_two_layers(path, rng):
    """A classifier whose outputs have the names that `fuse` adds."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        two_layers (float[N, 6] x) => (float[N, 4] scores, int64[N] label, float[N, 8] features)
        {
            hidden = MatMul(x, first)
            features = Relu(hidden)
            scores = MatMul(features, last)
            label = ArgMax<axis = 1, keepdims = 0>(scores)
        }"""
    )
    for name, shape in (("first", (6, 8)), ("last", (8, 4))):
        weight = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    onnx.save(model, path)


def test_outputs_of_the_classifier_keep_their_names(tmp_path, rng):
    write_two_layers(tmp_path / "c.onnx", rng)
    prepare(tmp_path / "c.onnx", tmp_path / "s.onnx", logits="scores")
    metadata = fuse(tmp_path / "s.onnx", tmp_path / "f.onnx", features=["last.l2"])
    assert metadata.outputs == ("scores", "label", "features")
    assert metadata.added["label"] == "gradscore_label"
    assert metadata.added["features"] == "gradscore_features"
    rows = rng.standard_normal((5, 6)).astype(np.float32)
    found, plain = run(tmp_path / "f.onnx", rows), run(tmp_path / "c.onnx", rows)
    for name, values in plain.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["gradscore_label"], plain["label"])
    expected = Scorer.load(tmp_path / "s.onnx").score(rows)["last.l2"]
    np.testing.assert_allclose(found["gradscore_features"][:, 0], expected, rtol=1e-5)


def test_half_precision_stays_outside(digits, tmp_path):
    _, rows = digits
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 5))
    export_classifier(module.half().eval(), torch.zeros(2, 1, 8, 8, dtype=torch.half), tmp_path / "c.onnx")
    prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")
    fuse(tmp_path / "s.onnx", tmp_path / "f.onnx", features=["*"])
    halves = rows[:6].astype(np.float16)
    found, plain = run(tmp_path / "f.onnx", halves), run(tmp_path / "c.onnx", halves)
    name = next(iter(plain))
    assert found[name].dtype == np.float16
    np.testing.assert_allclose(found[name], plain[name], rtol=2e-2, atol=2e-3)
    assert_features(found["features"], Scorer.load(tmp_path / "s.onnx").score(halves))


class Calibration(quantization.CalibrationDataReader):
    """A few pictures to find the ranges of activations on."""

    def __init__(self, rows):
        self._rows = iter([{"input": rows[:16]}, {"input": rows[16:32]}])

    def get_next(self):
        return next(self._rows, None)


def test_quantised_classifiers_score_by_their_dequantised_weights(digits, tmp_path):
    folder, rows = digits
    quantization.quantize_static(
        folder / "c.onnx", tmp_path / "q.onnx", Calibration(rows), quant_format=quantization.QuantFormat.QDQ
    )
    prepare(tmp_path / "q.onnx", tmp_path / "s.onnx")
    fuse(tmp_path / "s.onnx", tmp_path / "f.onnx", features=["*"])
    found = run(tmp_path / "f.onnx", rows[:9])
    assert_features(found["features"], Scorer.load(tmp_path / "s.onnx").score(rows[:9]))


def test_what_cannot_be_fused_is_refused(digits, tmp_path):
    folder, rows = digits
    scorer = Scorer.load(folder / "s.onnx")
    scores = scorer.score(rows)
    foreign = Verdict.fit(
        scores.features,
        np.arange(len(rows)) % 2 == 0,
        feature_names=scores.feature_names,
        model_fingerprint="0" * 64,
        folds=0,
    )
    with pytest.raises(MismatchError, match="scoring models differ"):
        fuse(folder / "s.onnx", tmp_path / "f.onnx", verdict=foreign)
    with pytest.raises(InputError, match=r"no feature matches 'fc9\.\*' \(--features\)"):
        fuse(folder / "s.onnx", tmp_path / "f.onnx", features=["fc9.*"])
    with pytest.raises(ModelError, match="gradscore prepare"):
        fuse(folder / "c.onnx", tmp_path / "f.onnx")
    with pytest.raises(OutputExistsError):
        fuse(folder / "s.onnx", folder / "c.onnx")
    assert not (tmp_path / "f.onnx").exists()


def test_a_self_scoring_model_is_no_scoring_model(digits, tmp_path):
    folder, _ = digits
    fuse(folder / "s.onnx", tmp_path / "f.onnx")
    with pytest.raises(ModelError, match="is a self-scoring model"):
        Scorer.load(tmp_path / "f.onnx")
    with pytest.raises(ModelError, match="is a self-scoring model"):
        fuse(tmp_path / "f.onnx", tmp_path / "g.onnx")


def test_inspect_tells_what_was_added(digits, tmp_path):
    folder, rows = digits
    fuse(folder / "s.onnx", tmp_path / "f.onnx", verdict=verdict_for(Scorer.load(folder / "s.onnx"), rows))
    report = inspect_model(tmp_path / "f.onnx")
    assert [item["name"] for item in report["outputs"]][-len(ADDED) :] == ADDED
    plain, whole = report["cost"]["classifier"], report["cost"]["self_scoring"]
    multiplications = 36 * 16 * 9 + 16 * 32 * 16 * 9 + 128 * 64 + 64 * 10
    assert plain["flops"] == pytest.approx(2 * multiplications, rel=0.2)
    assert whole["nodes"] == len(onnx.load(tmp_path / "f.onnx").graph.node)
    assert report["cost"]["flops_ratio"] == pytest.approx(whole["flops"] / plain["flops"])
    assert whole["weight_bytes"] > plain["weight_bytes"] > 4 * (144 + 4608 + 8192 + 640)


def test_the_back_end_graph_gives_the_kernels_features(digits, prepared, tmp_path):
    folder, rows = digits
    kernels, graph = (Scorer.load(folder / "s.onnx", backend=name) for name in ("auto", "graph"))
    assert graph.backend == "graph"
    expected, found = kernels.score(rows), graph.score(rows)
    np.testing.assert_array_equal(found.label, expected.label)
    assert_features(found.features, expected)
    assert graph.score(rows[:0]).features.shape == (0, len(graph.feature_names))
    with pytest.raises(InputError, match="back end graph keeps no gradients"):
        graph.layer_gradients(rows[:1])
    with pytest.raises(ModelError, match="gradscore prepare"):
        Scorer.load(folder / "c.onnx", backend="graph")


def test_tables_name_the_back_end_graph(digits, tmp_path, capsys):
    from gradscore.cli import main

    folder, rows = digits
    np.save(tmp_path / "rows.npy", rows[:20])
    sys.argv = [
        "gradscore",
        "score",
        str(folder / "s.onnx"),
        str(tmp_path / "rows.npy"),
        "-o",
        str(tmp_path / "t.parquet"),
        "--backend",
        "graph",
    ]
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code, capsys.readouterr().err
    assert ScoreTable.read(tmp_path / "t.parquet").metadata["backend"] == "graph"


class Wide(torch.nn.Module):
    """A convolution whose gradient is too large for a batch, behind a batch norm and a layer of no interest."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 96, 3, stride=2, padding=1, bias=False)
        self.norm = torch.nn.BatchNorm2d(96)
        self.wide = torch.nn.Conv2d(96, 160, 3)
        self.last = torch.nn.Linear(160, 4)

    def forward(self, x):
        return self.last(torch.relu(self.wide(torch.relu(self.norm(self.first(x))))).mean((2, 3)))


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A scoring model of `Wide`, and inputs."""
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(2)
    module = Wide()
    module(torch.randn(64, 3, 12, 12))  # the norm's statistics
    export_classifier(module.eval(), torch.zeros(2, 3, 12, 12), folder / "c.onnx")
    prepare(folder / "c.onnx", folder / "s.onnx")
    return folder, np.random.default_rng(8).standard_normal((64, 3, 12, 12), dtype=np.float32)


@pytest.mark.parametrize("optimize", [True, False], ids=["optimised", "plain"])
def test_large_gradients_are_taken_one_sample_after_the_other(wide, tmp_path, optimize):
    folder, rows = wide
    fuse(folder / "s.onnx", tmp_path / "f.onnx", features=["*"])
    assert [node.op_type for node in onnx.load(tmp_path / "f.onnx").graph.node].count("Scan") == 1
    for count in (1, 7, 64):
        found, scores = run(tmp_path / "f.onnx", rows[:count], optimize=optimize), Scorer.load(folder / "s.onnx")
        assert_features(found["features"], scores.score(rows[:count]))
    whole, part = (inspect_model(tmp_path / "f.onnx")["cost"][key] for key in ("self_scoring", "classifier"))
    assert whole["flops"] > part["flops"] + 2 * 160 * 96 * 9 * 16


def test_a_batch_norm_that_is_not_asked_for_goes_into_the_convolution(wide, tmp_path):
    folder, rows = wide
    fuse(folder / "s.onnx", tmp_path / "f.onnx", features=["wide.*"])
    own = run(folder / "c.onnx", rows[:9])
    found = run(tmp_path / "f.onnx", rows[:9], optimize=False)
    for name, values in own.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)
    scores = Scorer.load(folder / "s.onnx").score(rows[:9])
    columns = [scores.feature_names.index(f"wide.{statistic}") for statistic in ("l1", "l2", "max", "std")]
    np.testing.assert_allclose(found["features"][:, [0, 1, 3, 5]], scores.features[:, columns], rtol=1e-4)
    nodes = onnx.load(tmp_path / "f.onnx").graph.node
    first = next(node for node in nodes if node.op_type == "Conv")
    assert [node.op_type for node in nodes if first.output[0] in node.input] == ["Relu"]


def test_memory_does_not_grow_with_the_gradients_of_a_batch(wide, tmp_path):
    """138,240 weights a sample: a batch of 2,000 would hold 1.1 GB of gradients."""
    folder, rows = wide
    fuse(folder / "s.onnx", tmp_path / "f.onnx", features=["wide.*"])
    np.save(tmp_path / "rows.npy", np.tile(rows, (32, 1, 1, 1))[:2000])
    program = (
        "import sys, resource, numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession(sys.argv[1])\n"
        "rows = numpy.load(sys.argv[2])\n"
        "session.run(['features'], {session.get_inputs()[0].name: rows[:8]})\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "session.run(['features'], {session.get_inputs()[0].name: rows})\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    command = [sys.executable, "-I", "-c", program, str(tmp_path / "f.onnx"), str(tmp_path / "rows.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500, "MiB"
