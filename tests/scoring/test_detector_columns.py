"""Detectors as columns: equal to the detectors on torch's own numbers, with a reference that a pass over inputs learns."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from gradscore import InputError, MismatchError, ModelError, Scorer, ScoreTable, Verdict, open_source
from gradscore.comparing.cases import collect
from gradscore.comparing.comparison import compare
from gradscore.detectors import DETECTORS, DetectorReference, LastLayer, Observations
from gradscore.model.model_file import read_metadata
from gradscore.runs import reference_run
from gradscore.runs.reference_run import learn_reference
from gradscore.runs.scoring_run import run_identity, score_to_parquet
from gradscore.scoring.detector_columns import DETECTOR_COLUMNS, OTHER_COLUMNS
from gradscore.scoring.extra_features import EXTRA_FEATURES
from gradscore.scoring.last_layer import read_last_layer
from gradscore.unknowns.synthesis import score_unknowns
from models.digits_cnn import DigitsCNN


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return DigitsCNN().eval()


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (150, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detectors")
    np.savez(folder / "known.npz", images=images)
    return folder


@pytest.fixture(scope="module")
def model(module, prepared):
    return prepared("detectors", module, torch.zeros(2, 1, 8, 8))


@pytest.fixture(scope="module")
def reference(model, folder):
    path = folder / "reference.safetensors"
    learned = learn_reference(model, open_source([folder / "known.npz"]), path)
    assert not learned.left_out
    assert set(learned.detectors) == {name for name in DETECTOR_COLUMNS if DETECTORS[name].has_reference}
    assert (learned.rows, learned.right, learned.wrong, learned.failed) == (150, 150, 0, 0)
    return path


def observed(module, images):
    """Return what detectors read, from torch in double precision."""
    exact, kept = copy.deepcopy(module).double(), {}
    for name in ("conv1", "conv2", "fc1", "fc2"):
        exact.get_submodule(name).register_forward_pre_hook(lambda _, given, name=name: kept.update({name: given[0]}))
    with torch.no_grad():
        logits = exact(torch.from_numpy(images[:, None] / 255.0)).numpy()
    means = {name: (one.mean((2, 3)) if one.ndim == 4 else one).numpy() for name, one in kept.items()}
    return Observations(logits, logits.argmax(axis=1), means["fc2"], means)


def test_every_detector_is_a_column_somewhere():
    assert set(DETECTOR_COLUMNS) | (OTHER_COLUMNS - {"residual"}) == set(DETECTORS)
    assert not set(DETECTOR_COLUMNS) & set(EXTRA_FEATURES)


def test_columns_equal_the_detectors_on_torch(model, module, images, reference):
    scorer = Scorer.load(model, features=[*DETECTOR_COLUMNS, "energy"], reference=reference)
    assert scorer.feature_names[-len(DETECTOR_COLUMNS) - 1 :] == ("energy", *DETECTOR_COLUMNS)
    assert scorer.extra_features == ("energy", *DETECTOR_COLUMNS)
    layer = LastLayer(*(one.detach().double().numpy() for one in (module.fc2.weight, module.fc2.bias)))
    known = observed(module, images)
    chosen = [name.partition("/")[0] for name in DetectorReference.load(reference).of("mahalanobis_layers")]
    known = Observations(
        known.logits, known.label, known.vector, {name: known.pooled[name] for name in dict.fromkeys(chosen)}
    )
    rng = np.random.default_rng(5)
    new = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    seen = observed(module, new)
    scores = scorer.score(new[:, None])
    for name in DETECTOR_COLUMNS:
        detector = DETECTORS[name]
        wanted = detector.confidence(seen, layer, detector.reference(known, layer))
        np.testing.assert_allclose(scores[name], wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max(), err_msg=name)
    np.testing.assert_array_equal(
        scores.features[:, : -len(DETECTOR_COLUMNS)],
        Scorer.load(model, features=["energy"]).score(new[:, None]).features,
    )


class NoBias(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(7, 6), nn.Linear(6, 4, bias=False)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(x)))


class Product(nn.Module):
    """Logits by a matrix that stands on the right, and a bias of its own."""

    def __init__(self):
        super().__init__()
        self.hidden, self.matrix, self.shift = (
            nn.Linear(7, 6),
            nn.Parameter(torch.randn(6, 4)),
            nn.Parameter(torch.randn(4)),
        )

    def forward(self, x):
        return torch.relu(self.hidden(x)) @ self.matrix + self.shift


class Cooled(NoBias):
    """Logits that are divided after the last layer."""

    def forward(self, x):
        return super().forward(x) / 3


@pytest.mark.parametrize("kind", [NoBias, Product])
def test_the_last_layer_is_read(kind, prepared, rng):
    torch.manual_seed(1)
    module = kind().eval()
    path = prepared(f"last-layer-{kind.__name__}", module, torch.zeros(2, 7))
    layer = read_last_layer(path, read_metadata(path), "vim")
    x = rng.standard_normal((5, 7)).astype(np.float32)
    with torch.no_grad():
        vector = torch.relu(module.hidden(torch.from_numpy(x))).numpy()
        logits = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(vector @ layer.weight.T + layer.bias, logits, rtol=1e-4, atol=1e-5)


def test_weights_beside_the_model_are_read(module, prepared, tmp_path):
    from gradscore import export_classifier, prepare

    torch.manual_seed(1)
    wide = nn.Sequential(nn.Linear(7, 400), nn.ReLU(), nn.Linear(400, 4)).eval()
    export_classifier(wide, torch.zeros(2, 7), tmp_path / "wide.onnx")
    prepare(tmp_path / "wide.onnx", tmp_path / "wide.scoring.onnx", external_data=True)
    layer = read_last_layer(tmp_path / "wide.scoring.onnx", read_metadata(tmp_path / "wide.scoring.onnx"), "vim")
    np.testing.assert_allclose(layer.weight, wide[2].weight.detach().numpy())


def test_a_model_that_lacks_the_layer_keeps_the_others(prepared, tmp_path, rng):
    torch.manual_seed(1)
    path = prepared("cooled", Cooled().eval(), torch.zeros(2, 7))
    np.save(tmp_path / "x.npy", rng.standard_normal((60, 7)).astype(np.float32))
    source = open_source([tmp_path / "x.npy"])
    learned = learn_reference(path, source, tmp_path / "reference")
    assert {"kl_matching", "openmax"} <= set(learned.detectors)
    for name in ("dice", "vim"):
        assert "leave" in learned.left_out[name].lower()
    with pytest.raises(ModelError, match="vim needs"):
        learn_reference(path, source, tmp_path / "other", features=["vim"])
    with pytest.raises(ModelError, match=r"ash_s needs one dense layer"):
        Scorer.load(path, features=["ash_s"])


def test_impossible_columns_are_refused_at_loading(model, reference, prepared, tmp_path):
    with pytest.raises(InputError, match=r"vim .*no reference: `gradscore reference MODEL KNOWN_INPUTS -o reference"):
        Scorer.load(model, features=["vim"])
    with pytest.raises(InputError, match=r"--features takes recommended, max_logit, .*knn"):
        Scorer.load(model, features=["knnn"], reference=reference)
    with pytest.raises(InputError, match="ash_s needs the inputs of layers"):
        Scorer.load(model, backend="graph", features=["gen", "ash_s"])
    assert Scorer.load(model, backend="graph", features=["gen"]).feature_names[-1] == "gen"
    held = DetectorReference.load(reference)
    DetectorReference({"knn": held.arrays["knn"]}, held.model_fingerprint, 3).save(tmp_path / "few")
    with pytest.raises(
        InputError, match=r"holds nothing for vim: make it again with `gradscore reference --features vim`"
    ):
        Scorer.load(model, features=["knn", "vim"], reference=tmp_path / "few")
    DetectorReference(held.arrays, "another", 3).save(tmp_path / "foreign")
    with pytest.raises(
        MismatchError, match=r"the reference belongs to the scoring model another…, and .*: make another"
    ):
        Scorer.load(model, features=["knn"], reference=tmp_path / "foreign")
    arrays = {"knn": {"bank": np.ones((4, 63))}}
    DetectorReference(arrays, held.model_fingerprint, 4).save(tmp_path / "narrow")
    with pytest.raises(InputError, match="knn: the reference does not fit the model"):
        Scorer.load(model, features=["knn"], reference=tmp_path / "narrow")


def test_the_reference_is_part_of_the_run(model, reference, folder, tmp_path):
    scorer = Scorer.load(model, features=["knn"], reference=reference)
    source = open_source([folder / "known.npz"])
    assert run_identity(scorer, source, 256)["reference"] == scorer.reference_sha256
    assert "reference" not in run_identity(Scorer.load(model, features=["gen"]), source, 256)
    score_to_parquet(scorer, source, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (tmp_path / "out" / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    learn_reference(model, source.first(50), tmp_path / "other")
    other = Scorer.load(model, features=["knn"], reference=tmp_path / "other")
    with pytest.raises(MismatchError, match="reference was"):
        score_to_parquet(other, source, tmp_path / "out", resume=True)


def test_tables_of_other_references_are_not_mixed_and_comparisons_show_detectors(model, reference, folder, tmp_path):
    source = open_source([folder / "known.npz"])
    learn_reference(model, source.first(50), tmp_path / "other")
    scorers = [Scorer.load(model, features=["knn", "gen"], reference=one) for one in (reference, tmp_path / "other")]
    score_to_parquet(scorers[0], source, tmp_path / "known.parquet")
    known = ScoreTable.read(tmp_path / "known.parquet")
    assert known.metadata["reference_sha256"] == scorers[0].reference_sha256
    truth = np.where(np.arange(len(known)) % 3 == 0, (known.labels() + 1) % 10, known.labels())
    lines = [f"{name},{label}" for name, label in zip(known.ids(), truth, strict=True)]
    (tmp_path / "labels.csv").write_text("id,label\n" + "\n".join(lines))
    with pytest.raises(
        MismatchError, match=r"references of detectors differ: the known table has \w+…, unknown table noise \w+…"
    ):
        collect(known, {"noise": score_unknowns(scorers[1], "uniform", 20)}, label_file=tmp_path / "labels.csv")
    cases = collect(known, {"noise": score_unknowns(scorers[0], "uniform", 20)}, label_file=tmp_path / "labels.csv")
    verdicts = [
        Verdict.fit(
            cases.features, cases.correct, feature_names=known.feature_names, model_fingerprint=known.model_fingerprint,
            method="lasso", select=["knn", "gen"], folds=0, reference_sha256=sha256,
        )
        for sha256 in (known.reference_sha256, "0" * 64)
    ]  # fmt: skip
    assert verdicts[0].apply(known).shape == (150,)
    for judged in (lambda: verdicts[1].apply(known), lambda: compare(cases, {"other": verdicts[1]})):
        with pytest.raises(
            MismatchError, match=r"references of detectors differ: (the verdict|verdict other) has 000000000000…"
        ):
            judged()
    found = compare(cases, {"mine": verdicts[0]})
    assert {"max_softmax", "knn", "gen"} <= set(found)
    assert found["knn"].pooled.ece is None


def test_a_random_sample_is_kept(model, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(reference_run, "MOST_ROWS", 40)
    source = open_source([folder / "known.npz"])
    found = [learn_reference(model, source, tmp_path / f"{size}", batch_size=size) for size in (7, 64)]
    assert {one.rows for one in found} == {40}
    assert {one.right for one in found} == {150}
    banks = [DetectorReference.load(tmp_path / f"{size}").of("knn")["bank"] for size in (7, 64)]
    assert banks[0].shape == (40, 64)
    np.testing.assert_allclose(banks[0], banks[1], rtol=1e-4, atol=1e-6)


def test_wrong_and_unreadable_inputs_teach_nothing(model, folder, tmp_path, images):
    source = open_source([folder / "known.npz"])
    label = Scorer.load(model).score(images[:, None]).label
    truth = np.where(np.arange(150) % 2 == 0, label, (label + 1) % 10)
    learned = learn_reference(model, source, tmp_path / "half", truth=truth)
    assert (learned.rows, learned.right, learned.wrong) == (75, 75, 75)
    with pytest.raises(InputError, match="none of 150 known inputs could be read and is predicted right"):
        learn_reference(model, source, tmp_path / "none", truth=(label + 1) % 10)
    with pytest.raises(InputError, match=r"'gen' is no detector with a reference: --features takes kl_matching, "):
        learn_reference(model, source, tmp_path / "none", features=["gen"])
    assert not (tmp_path / "none").exists()
