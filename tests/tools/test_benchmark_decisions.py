"""The benchmark of decisions in miniature: what is drawn, trained, scored, fitted, measured and written."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gradscore import InputError
from gradscore.detectors import DETECTORS
from gradscore.metrics.ranking import Ranking, auroc
from tools.benchmark_decisions import main
from tools.decisions import confidences, mails, report, scoring, text_task, training
from tools.decisions.answers import Answers
from tools.decisions.confidences import CONFIDENCES, SUM
from tools.decisions.distortions import CORRUPTIONS, NOISES
from tools.decisions.goals import Goal
from tools.decisions.material import parted
from tools.decisions.measured import Measured
from tools.decisions.measures import SEEN, calibration, measures, unseen
from tools.decisions.observed import kinds, observations, verdict_columns
from tools.decisions.pictures import DATA_SETS, Pictures
from tools.decisions.results import BEST, Results
from tools.decisions.tasks import MINIATURE, TASKS

LISTS = {
    "fork": "List-Id: Friends <fork.xent.com>",
    "ilug": "List-Id: Irish\n\t<ilug.linux.ie>",
    "rpm": "List-Id: <rpm-zzzlist.freshrpms.net>",
    "feeds": "From: someone <rssfeeds@here.org>",
    "exmh": "List-Id: <exmh-users.here.org>",
    "forteana": "To: zzzzteana@yahoogroups.com",
    "filters": "List-Id: <razor-users.here.org>",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decisions")
    main(["--miniature", "--only-score", "--cache", str(folder)])
    return folder


@pytest.fixture(params=MINIATURE)
def measured(cache, request):
    return Measured.read(cache / f"{request.param}-0.npz")


def test_known_rows_are_on_both_sides_and_made_ones_only_in_the_fit(measured):
    known, made = measured.family("known"), measured.family("made")
    assert (known & measured.fit).sum() == (known & measured.test).sum() == 300
    assert not (made & measured.test).any()
    assert (measured.fit == (known & measured.fit) | made).all()
    assert (measured.truth[made | measured.family("near", "far", "noise")] == -1).all()
    assert (measured.truth[measured.family("corruption")] >= 0).all()
    assert not measured.correct[made].any()
    assert 0.8 < measured.correct[known & measured.test].mean() == measured.about["accuracy"]["test"]
    for name in measured.group_names:
        assert measured.of(name).any()


def test_the_columns_are_those_of_a_score_table(measured):
    assert measured.features.shape == (len(measured), len(measured.feature_names))
    assert np.isfinite(measured.features).all()
    logits = measured.columns(*(f"logits.{index}" for index in range(8)))
    np.testing.assert_array_equal(logits.argmax(axis=1), measured.label)
    np.testing.assert_allclose(logits.max(axis=1), measured.columns("max_logit")[:, 0])
    penultimate = measured.columns(*(name for name in measured.feature_names if name.startswith("penultimate.")))
    np.testing.assert_allclose(penultimate @ measured.head_weight.T + measured.head_bias, logits, rtol=1e-3, atol=1e-3)


def test_a_second_run_reads_what_is_there(cache, monkeypatch, capsys):
    def refuse(*_):
        raise AssertionError("what is cached was done again")

    monkeypatch.setattr(training, "_train", refuse)
    monkeypatch.setattr(scoring, "prepare", refuse)
    main(["--miniature", "--only-score", "--cache", str(cache)])
    assert capsys.readouterr().out.count("accuracy") == 2
    (cache / "table-0.npz").unlink()  # the classifier is still there
    main(["--miniature", "--only-score", "--cache", str(cache), "--task", "table"])
    assert Measured.read(cache / "table-0.npz").about["task"] == "table"


def test_what_cannot_be_done_is_said(tmp_path):
    with pytest.raises(SystemExit):
        main(["--task", "mnist", "--miniature"])
    with pytest.raises(InputError, match=r"has no mnist/\*images-idx3\* \(MNIST\): give its folder with --data-dir"):
        TASKS["mnist"].draw(Pictures([tmp_path]), 0)
    with pytest.raises(InputError, match="Spam Assassin"):
        TASKS["text"].draw(Pictures([tmp_path]), 0)
    with pytest.raises(ValueError, match="cannot be drawn from 5"):
        parted(np.arange(5), (2, 2, 2), np.random.default_rng(0))


def test_the_table_names_data_sets_and_their_classes():
    assert list(TASKS) == ["mnist", "fashion", "cifar", "vit", "text", "tabular"]
    for task in TASKS.values():
        if hasattr(task, "data_set"):
            assert {task.data_set, *task.unknown} <= DATA_SETS.keys()
            assert set(task.left_out) <= set(DATA_SETS[task.data_set].class_names)


@pytest.mark.parametrize("change", [*CORRUPTIONS.values(), *NOISES.values()], ids=[*CORRUPTIONS, *NOISES])
@pytest.mark.parametrize("shape", [(6, 1, 28, 28), (6, 3, 32, 32)])
def test_a_distortion_changes_every_picture_and_follows_its_seed(change, shape, rng):
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    changed = [change(images, np.random.default_rng(1)) for _ in "ab"]
    np.testing.assert_array_equal(*changed)
    assert (changed[0].shape, changed[0].dtype) == (shape, np.uint8)
    assert (changed[0] != images).any(axis=(1, 2, 3)).all()


@pytest.fixture
def corpus(tmp_path, rng):
    """Twelve mails of each list, of spam and of hard ham, every one of words of its own."""
    origins = {
        **{name: ("easy-ham-1", header) for name, header in LISTS.items()},
        "spam": ("spam-1", "X: y"),
        "hard": ("hard-ham-1", "X: y"),
    }
    for name, (folder, header) in origins.items():
        (tmp_path / folder).mkdir(exist_ok=True)
        for number in range(12):
            said = " ".join(f"{name}{word}" for word in rng.integers(0, 50, 40))
            text = f"{header}\nSubject: Re: [tag] word\n\n{said} me@here.org http://here.org\n______\nfooter {name}"
            path = Path(tmp_path / folder / f"{name}-{number}.json")
            path.write_text(json.dumps({"text": text}))
    return tmp_path


def test_mails_are_told_apart_by_headers_that_their_ids_do_not_hold(corpus):
    found = mails.mails([corpus])
    assert {name: len(ids) for name, ids in found.items()} == dict.fromkeys([*LISTS, "spam", "hard ham"], 12)
    assert all(((ids > 0).sum(axis=1) == 41).all() for ids in found.values())  # "word" and forty of the body
    assert not (np.concatenate(list(found.values())) == mails.ids_of(["footer"])[0]).any()
    assert all(ids.max() < mails.WORDS for ids in found.values())


def test_the_task_on_texts_draws_from_all(corpus, monkeypatch):
    foreign = [" ".join(f"foreign{number}" for number in range(700))]
    monkeypatch.setattr(text_task, "FAR", {"other languages": lambda: iter(foreign)})
    task = text_task.TextTask("mails", TASKS["text"].training, ("spam", "fork", "rpm"), (16, 8, 8))
    material = task.draw(Pictures([corpus]), 0)
    assert [len(part) for part in (material.training, material.fit, material.test)] == [16, 8, 8]
    rows = np.concatenate([part.inputs for part in (material.training, material.fit, material.test)])
    assert len(np.unique(rows, axis=0)) == 32
    assert {one.family for one in material.others.values()} == {"near", "far", "corruption", "noise"}
    assert all(one.rows.inputs.shape[1:] == (mails.LENGTH,) for one in material.others.values())


def test_texts_that_the_machine_has(rng):
    assert "import" in mails.words(next(mails.python_source()))
    assert len(mails.pieces(iter(["one two three " * 100, "one two three " * 100]), 10, rng)) == 1


@pytest.fixture(scope="module")
def whole(cache):
    """The files that the miniature writes: its folder, and the content of results.json."""
    output = cache / "written"
    main(["--miniature", "--cache", str(cache), "-o", str(output)])
    return output, json.loads((output / report.RESULTS).read_text())


def test_the_miniature_measures_every_detector_and_recipe(whole):
    output, results = whole
    assert {one.name for one in output.iterdir()} == {report.RESULTS, report.TEXT, report.FIGURE}
    assert [one["about"]["task"] for one in results["repetitions"]] == list(MINIATURE)
    for one in results["repetitions"]:
        assert set(one["measures"]) >= {"auto", "two-heads", "max-softmax", "boosting", SUM, *DETECTORS}
        for measure in (
            "all",
            "wrong",
            "wrong_product",
            "near",
            "near_fpr95",
            "aupr_in",
            "aupr_out",
            "aurc",
            "corrupted",
        ):
            assert all(0 <= found[measure] <= 1 for found in one["measures"].values())
        assert all(one["measures"]["auto"][f"ece_{question}_floor"] > 0 for question in ("correct", "right"))
        chosen = one["fits"]["auto"]["method"]
        assert one["measures"][chosen] == one["measures"]["auto"]
    assert len(results["goals"]) == 12
    assert not re.search(r"/(root|home|tmp|work)\b", json.dumps(results))


def test_the_text_says_what_is_in_the_results(whole):
    output, content = whole
    text, results = (output / report.TEXT).read_text(), Results.of(content["repetitions"])
    for task in MINIATURE:
        assert f"- **{task}**: " in text
        assert f"`{results.best[task]}`" in text
    best = results.mean(BEST, "table", "all")
    assert best.mean == max(results.mean(name, "table", "all").mean for name in DETECTORS)
    assert f"| {best.text()} |" in text.replace("**", "")
    for goal in content["goals"]:
        assert goal["question"] in text
    before = text, (output / report.FIGURE).read_bytes()
    main(["--tables-only", "-o", str(output)])
    assert before == ((output / report.TEXT).read_text(), (output / report.FIGURE).read_bytes())


def test_fits_are_cached_and_what_is_missing_is_said(whole, cache, monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("what is cached was fitted again")

    monkeypatch.setattr(confidences.Verdict, "fit", refuse)
    arguments = [
        "--miniature",
        "--cache",
        str(cache),
        "-o",
        str(tmp_path),
        "--seed",
        "0",
        "--seed",
        "1",
        "--only-cached",
    ]
    monkeypatch.setattr("tools.benchmark_decisions._scored", lambda name, seed, _: _path(cache, name, seed))
    main([*arguments, "--confidence", "ridge", "--confidence", "knn"])
    text = (tmp_path / report.TEXT).read_text()
    assert "Missing: pictures, seed 1; table, seed 1." in text
    assert "`ridge`" not in text.partition("## Fits")[0]  # none is cached, so it has no row


def _path(cache, name, seed):
    path = cache / f"{name}-{seed}.npz"
    return path if path.exists() else None


def test_verdicts_read_neither_logits_nor_vectors_and_detectors_learn_from_right_rows_alone(measured):
    names = np.array(measured.feature_names)[verdict_columns(measured)]
    assert {"entropy", "max_logit", "all.l2"} <= set(names)
    assert not [name for name in names if name.startswith(("penultimate.", "logits."))]
    assert (kinds(measured) == -1).sum() == measured.family("known").sum()
    seen = observations(measured, confidences.usual_rows(measured))
    assert len(seen) == (measured.fit & measured.correct).sum() < 300
    assert seen.classes == 8
    assert all(".pooled" not in layer for layer in seen.pooled)
    other = replace(measured, features=np.where(measured.test[:, None], 0.0, measured.features))
    kept = [CONFIDENCES["mahalanobis"].answers(one).correct for one in (measured, other)]
    assert np.ptp(kept[1]) < 1e-6 < np.ptp(kept[0])


def test_measures_are_those_of_the_rows_that_they_name(measured, rng):
    test, known = measured.test, measured.family("known")[measured.test]
    answers = Answers(*(rng.permutation(int(test.sum())).astype(float) for _ in "abc"), {})
    found = measures(measured, answers, probabilities=False)
    right = measured.correct[test] & known
    assert found["wrong"] == auroc(Ranking.of(answers.right[known], right[known]))
    assert found["wrong_product"] == auroc(Ranking.of(answers.correct[known], right[known]))
    unknown = np.isin(np.array(measured.group_names)[measured.group[test]], unseen(measured, "near", "far", "noise"))
    assert found["all"] == auroc(Ranking.of(answers.correct[known | unknown], right[known | unknown]))
    assert set(found["groups"]) > SEEN & set(measured.group_names) != set()
    assert not SEEN & set(unseen(measured, "near", "far", "noise"))


def test_perfect_probabilities_have_the_ece_of_the_floor(rng):
    p = rng.uniform(0.5, 1, 500)
    found = [calibration(p, rng.random(500) < p, "x") for _ in range(40)]
    assert len({one["ece_x_floor"] for one in found}) == 1
    assert np.mean([one["ece_x"] for one in found]) == pytest.approx(found[0]["ece_x_floor"], abs=0.005)
    with pytest.raises(ValueError, match="no probabilities"):
        calibration(p + 1, p > 0.7, "x")


def test_what_is_not_a_number_counts_as_the_least():
    answers = Answers.single(np.array([3.0, np.nan, -2.0]))
    assert answers.correct.tolist() == [3.0, -3.0, -2.0]
    assert answers.about["not_a_number"] == 1


def test_a_line_is_reached_by_its_worst_task_or_by_the_mean():
    figures = {"a": -1.0, "b": 4.0}
    assert Goal("q", "worst", -1.0, 0.0, figures).as_dict() == {
        "question": "q", "over": "worst", "must": -1.0, "aim": 0.0, "figures": figures, "least": False, "value": -1.0,
        "must_reached": "reached", "aim_reached": "missed",
    }  # fmt: skip
    assert Goal("q", "mean", 1.5, None, figures).reached(None) == "–"
    assert Goal("q", "worst", 2.0, 4.0, figures, least=True).reached(2.0) == "missed"
    assert Goal("q", "worst", 2.0, 4.0, {}).reached(2.0) == "–"
