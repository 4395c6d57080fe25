"""Cases from tables, and confidences compared over all of them and per group."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradscore.comparing.cases import collect, read_unknown
from gradscore.comparing.comparison import TARGETS, compare, load_verdicts
from gradscore.errors import InputError, MismatchError
from gradscore.metrics.evaluation import evaluate
from gradscore.tables.table import ScoreTable, schema, to_batch
from gradscore.verdict import Verdict

NAMES = ("fc.l1", "fc.l2", "entropy", "max_softmax", "residual")


def table(count, seed, *, folders=True, doubt=0.0, fingerprint="ab" * 32, broken=()):
    """Return a score table of two classes, whose residual rises with its chance to be wrong."""
    rng = np.random.default_rng(seed)
    residual = 1 / (1 + np.exp(2 - doubt - 1.5 * rng.normal(size=count)))
    label, truth = rng.integers(0, 2, count), None
    truth = np.where(rng.random(count) < residual, 1 - label, label)
    ids = [f"{['cat', 'dog'][truth[i]]}/{i}.png" if folders else f"{i}.png" for i in range(count)]
    rows = np.stack([residual * 3, residual**2, residual**0.9, 1 - residual, residual], axis=1)
    metadata = {"model_fingerprint": fingerprint, "class_names": ["cat", "dog"]}
    errors = ["broken" if i in broken else None for i in range(count)]
    batch = to_batch(schema(NAMES, metadata), ids=ids, labels=label, features=rows, errors=errors)
    return ScoreTable.of(pa.Table.from_batches([batch]))


@pytest.fixture(scope="module")
def cases():
    unknown = {"noise": table(80, 1, folders=False, doubt=2.0), "letters": table(50, 2, folders=False, broken=(3, 4))}
    return collect(table(300, 0, broken=(0, 17)), unknown)


def test_cases_keep_rows_in_order_with_their_group(cases):
    assert cases.group_names == ("known", "noise", "letters")
    assert np.bincount(cases.group).tolist() == [298, 80, 48]
    assert (np.diff(cases.group) >= 0).all()
    assert cases.left_out == 4
    assert cases.ids[0].endswith("/1.png")
    assert cases.ids[298:300] == ("0.png", "1.png")
    assert cases.ids[-1] == "49.png"
    assert not cases.correct[cases.group > 0].any()
    assert (cases.truth[cases.group > 0] == -1).all()
    known = cases.group == 0
    assert (cases.correct[known] == (cases.label == cases.truth)[known]).all()
    names = np.array(["cat", "dog"])
    assert [name.split("/")[0] for name in cases.ids[:298]] == names[cases.truth[known]].tolist()
    np.testing.assert_array_equal(cases.features[298:378, 4], table(80, 1, doubt=2.0).features(["residual"])[:, 0])


def test_finite_drops_a_row_from_every_column(cases):
    import dataclasses

    features = cases.features.copy()
    features[5, 2], features[300, 0] = np.nan, np.inf
    found = dataclasses.replace(cases, features=features).finite()
    kept = np.delete(np.arange(len(cases)), [5, 300])
    assert len(found) == len(cases) - 2
    assert found.ids == tuple(np.array(cases.ids)[kept])
    for name in ("features", "correct", "group", "label", "truth"):
        np.testing.assert_array_equal(getattr(found, name), getattr(cases, name)[kept])


def test_pooled_auroc_is_the_mean_of_the_groups_weighted_by_their_negatives(cases):
    for result in compare(cases, {}).values():
        weights = [one.incorrect for one in result.groups.values()]
        assert sum(weights) == result.pooled.incorrect
        mean = np.average([one.auroc for one in result.groups.values()], weights=weights)
        assert result.pooled.auroc == pytest.approx(mean, abs=1e-12)
        assert len({one.correct for one in (result.pooled, *result.groups.values())}) == 1


def test_groups_are_evaluated_on_their_own_rows(cases):
    found = compare(cases, {})
    residual = cases.features[:, 4]
    for index, name in enumerate(cases.group_names):
        rows = cases.correct | (cases.group == index)
        expected = evaluate(-residual[rows], cases.correct[rows])
        assert found["max_softmax"].groups[name].auroc == expected.auroc
        assert found["max_softmax"].groups[name].fpr95 == expected.fpr95
        assert found["entropy"].groups[name].ece is None
        calibrated = evaluate(1 - residual[rows], cases.correct[rows])
        assert (found["max_softmax"].groups[name].ece, found["max_softmax"].groups[name].brier) == (
            calibrated.ece,
            calibrated.brier,
        )


def test_targets_choose_rows_and_positives(cases):
    found = {target: compare(cases, {}, target=target)["max_softmax"] for target in TARGETS}
    known, right = cases.group == 0, cases.correct
    assert set(found["correct"].groups) == {"known", "noise", "letters"}
    assert set(found["known"].groups) == {"noise", "letters"}
    assert (found["known"].pooled.correct, found["known"].pooled.incorrect) == (298, 128)
    assert found["known"].pooled.auroc == evaluate(-cases.features[:, 4], known).auroc
    assert set(found["misclassified"].groups) == {"known"}
    assert found["misclassified"].pooled.auroc == evaluate(-cases.features[known, 4], right[known]).auroc
    with pytest.raises(InputError, match="unknown target 'ood'; choose one of: correct, known, misclassified"):
        compare(cases, {}, target="ood")


def test_verdicts_stand_beside_the_baselines_with_intervals(cases):
    verdict = Verdict.fit(
        cases.features, cases.correct, feature_names=NAMES, model_fingerprint="ab" * 32, method="ridge", folds=0
    )
    found = compare(cases, {"mine": verdict}, resamples=50)
    assert list(found) == ["max_softmax", "entropy", "mine"]
    assert found["mine"].pooled.auroc == evaluate(verdict.apply(cases.features), cases.correct).auroc
    for result in (found["mine"], found["max_softmax"]):
        for one in (result.pooled, *result.groups.values()):
            assert set(one.intervals) >= {"auroc", "ece", "brier"}
            low, high = one.intervals["auroc"]
            assert low < one.auroc < high
    whole = json.loads(json.dumps(found["mine"].as_dict()))
    assert whole["auroc"] == found["mine"].pooled.auroc
    assert whole["groups"]["noise"]["auroc"] == found["mine"].groups["noise"].auroc
    with pytest.raises(InputError, match="may not be named 'entropy'"):
        compare(cases, {"entropy": verdict})
    other = collect(table(100, 0, fingerprint="cd" * 32))
    with pytest.raises(MismatchError, match=r"verdict mine belongs to abababababab…, the table to cdcdcdcdcdcd…"):
        compare(other, {"mine": verdict})


def test_unknown_tables_are_named_by_file_or_path(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        pq.write_table(table(30, 3, folders=False, broken=(2,)).table, tmp_path / folder / "noise.parquet")
    pq.write_table(table(30, 3, folders=False).table, tmp_path / "known.parquet")
    pq.write_table(table(30, 3, folders=False).table, tmp_path / "with:9")
    one, two = (str(tmp_path / folder / "noise.parquet") for folder in "ab")
    assert list(read_unknown([one], seed=0)) == ["noise"]
    assert list(read_unknown([one, two], seed=0)) == [one, two]
    assert list(read_unknown([str(tmp_path / "known.parquet")], seed=0)) == [str(tmp_path / "known.parquet")]
    drawn = read_unknown([f"{one}:7", str(tmp_path / "with:9")], seed=1)
    assert [len(part) for part in drawn.values()] == [7, 30]
    assert drawn["noise"].ids() == read_unknown([f"{one}:7"], seed=1)["noise"].ids()
    assert drawn["noise"].ids() != read_unknown([f"{one}:7"], seed=2)["noise"].ids()
    with pytest.raises(InputError, match="cannot draw 30 rows of 29 scored ones"):
        read_unknown([f"{one}:30"], seed=0)
    with pytest.raises(InputError, match="given twice"):
        read_unknown([one, one], seed=0)
    with pytest.raises(InputError, match="may not be named 'known'"):
        collect(table(30, 0), {"known": table(30, 1)})


def test_tables_that_do_not_belong_together_are_named(cases):
    with pytest.raises(MismatchError, match="unknown table noise to cdcdcdcdcdcd…"):
        collect(table(30, 0), {"noise": table(30, 1, fingerprint="cd" * 32)})


def test_verdicts_given_twice_are_refused(tmp_path, cases):
    verdict = Verdict.fit(cases.features, cases.correct, feature_names=NAMES, model_fingerprint="ab" * 32, folds=0)
    verdict.save(tmp_path / "entropy.onnx")
    assert list(load_verdicts([tmp_path / "entropy.onnx"])) == [str(tmp_path / "entropy.onnx")]
    with pytest.raises(InputError, match="a verdict is given twice"):
        load_verdicts([tmp_path / "entropy.onnx"] * 2)
