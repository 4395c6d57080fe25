"""A verdict's answers: saved and run as ONNX, for old files too; why a row is rejected; the same bytes every time."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import numpy_helper

from gradscore import ModelError, ScoreTable
from gradscore.model.file_kinds import METADATA_KEY
from gradscore.tables.table import schema, to_batch
from gradscore.verdict import METHODS, RECIPES, Verdict
from gradscore.verdict.learning.learn import learn
from gradscore.verdict.learning.settings import Settings
from gradscore.verdict.learning.thresholds import Balanced
from gradscore.verdict.model import LOOKS_UNKNOWN, LOOKS_WRONG
from gradscore.verdict.saving import SCHEMA_VERSION
from tests.support.planted import OLD_NAMES, extremes, rows

OLD = Path(__file__).parents[1] / "files/v0.1"
FINGERPRINT = "ab" * 32
GIVEN = rows()
FRESH = np.vstack([GIVEN.features, rows(50, 2, 10, seed=4).features])


def fitted(given=GIVEN, method="two-heads", **settings):
    return Verdict.fit(
        given.features, given.right, feature_names=given.names, model_fingerprint=FINGERPRINT, kind=given.kind,
        label=given.label, method=method, **settings,
    )  # fmt: skip


def table(features, names=GIVEN.names, errors=None):
    made = schema(names, {"model_fingerprint": FINGERPRINT, "class_names": ["a", "b", "c", "d"]})
    ids = [f"{row}.png" for row in range(len(features))]
    batch = to_batch(made, ids=ids, labels=np.zeros(len(features), int), features=features, errors=errors)
    return ScoreTable.of(pa.Table.from_batches([batch]))


@pytest.fixture(scope="module")
def verdict():
    return fitted()


def old_verdict():
    return Verdict.load(OLD / "verdict.onnx")


def parts(judgement):
    return judgement.p_right, judgement.p_known, judgement.p_correct


# ---------------------------------------------------------------- ONNX against Python


@pytest.mark.parametrize("method", [*RECIPES, "ridge", "threshold", "boosting"])
@pytest.mark.parametrize("names", [OLD_NAMES, GIVEN.names])
def test_the_saved_verdict_equals_what_was_fitted(tmp_path, method, names):
    given = rows(names=names)
    settings = Settings(method, folds=0)
    expected = learn(given, settings, 0)
    fitted(given, method, folds=0).save(tmp_path / "v.onnx")
    again = Verdict.load(tmp_path / "v.onnx")
    assert (again.method, again.threshold) == (method, expected.threshold)
    for features in (given.features, extremes(100, len(names)), given.features[:1]):
        for one, other in zip(parts(again.answers(features)), parts(expected.judge(features)), strict=True):
            assert ((one >= 0) & (one <= 1)).all()
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(again.apply(features), again.answers(features).p_correct)
    assert [len(one) for one in parts(again.answers(given.features[:0]))] == [0, 0, 0]


def test_rows_with_nan_or_infinity_have_no_answer(verdict):
    features = FRESH[:3].copy()
    features[0, 3], features[1, -1] = np.nan, np.inf
    for one in parts(verdict.answers(features)):
        np.testing.assert_array_equal(np.isnan(one), [True, True, False])


def test_the_summary_names_the_features_that_are_read(verdict):
    used = set(verdict.summary["used_features"])
    assert used <= set(GIVEN.names)
    assert {"residual", "fc.l1", "conv.pooled.0", "fc.activation.std"} <= used
    other = FRESH.copy()
    for column, name in enumerate(GIVEN.names):
        if name not in used:
            other[:, column] = 7.0
    np.testing.assert_array_equal(verdict.apply(other), verdict.apply(FRESH))
    assert fitted(method="max-softmax").summary["used_features"] == ["residual"]


# ---------------------------------------------------------------- why


def test_only_rejected_rows_say_why(verdict):
    errors = [None] * len(FRESH)
    errors[5] = "broken"
    features = FRESH.copy()
    features[5] = np.nan
    judged = verdict.judge(table(features, errors=errors)).to_pydict()
    answers = verdict.answers(features)
    for row, (decision, why) in enumerate(zip(judged["verdict"], judged["why"], strict=True)):
        if decision != "reject":
            assert why is None
        else:
            assert why == (LOOKS_UNKNOWN if answers.p_known[row] < answers.p_right[row] else LOOKS_WRONG)
    assert {LOOKS_UNKNOWN, LOOKS_WRONG, None} == set(judged["why"])
    assert judged["verdict"][5] is judged["p_right"][5] is judged["p_known"][5] is judged["why"][5] is None
    assert judged["error"][5] == "broken"


def test_unknown_inputs_look_unknown_and_wrong_ones_wrong(verdict):
    judged = np.array(verdict.judge(table(GIVEN.features)).to_pydict()["why"])
    unknown, wrong = judged[~GIVEN.known], judged[GIVEN.known & ~GIVEN.right]
    assert (unknown == LOOKS_UNKNOWN).sum() > 5 * (unknown == LOOKS_WRONG).sum()
    assert (wrong == LOOKS_WRONG).sum() > (wrong == LOOKS_UNKNOWN).sum()


def test_maximum_softmax_cannot_say_that_an_input_looks_unknown():
    judged = fitted(method="max-softmax").judge(table(GIVEN.features)).to_pydict()
    assert set(judged["p_known"]) == {1.0}
    assert set(judged["why"]) == {None, LOOKS_WRONG}


def test_a_single_classifier_divides_its_probability():
    verdict = fitted(method="ridge", folds=0)
    answers = verdict.answers(FRESH)
    np.testing.assert_allclose(answers.p_right * answers.p_known, answers.p_correct, atol=1e-8)
    assert (answers.p_right >= answers.p_correct).all()
    names = tuple(name if name != "residual" else "other" for name in GIVEN.names)
    alone = fitted(replace(GIVEN, names=names), "ridge", folds=0).answers(FRESH)
    np.testing.assert_array_equal(alone.p_right, alone.p_correct)
    np.testing.assert_allclose(alone.p_known, 1.0)


# ---------------------------------------------------------------- old files


def test_a_verdict_of_version_0_1_answers_one_question():
    verdict, scores = old_verdict(), ScoreTable.read(OLD / "scores.parquet")
    answers = verdict.answers(scores)
    np.testing.assert_array_equal(answers.p_correct, verdict.apply(scores))
    assert np.isfinite(answers.p_correct).all()
    assert np.isnan(answers.p_right).all()
    assert np.isnan(answers.p_known).all()
    judged = verdict.judge(scores).to_pydict()
    assert set(judged["p_right"]) == set(judged["p_known"]) == set(judged["why"]) == {None}
    assert set(judged["verdict"]) <= {"accept", "reject"}


def test_a_verdict_of_version_0_1_keeps_its_schema_with_another_threshold(tmp_path):
    scores = ScoreTable.read(OLD / "scores.parquet")
    right = np.arange(len(scores)) % 3 > 0
    decided = old_verdict().decide_by(Balanced(), scores.features(), right)
    decided.save(tmp_path / "v.onnx")
    again = Verdict.load(tmp_path / "v.onnx")
    assert again.threshold == decided.threshold
    np.testing.assert_array_equal(again.apply(scores), old_verdict().apply(scores))


def metadata_of(path):
    model = onnx.load(path)
    (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
    return model, entry


def other_threshold(model, entry):
    entry.value = json.dumps({**json.loads(entry.value), "threshold": 0.0})


def another_schema(model, entry):
    entry.value = json.dumps({**json.loads(entry.value), "schema_version": 1})


def a_future_schema(model, entry):
    entry.value = json.dumps({**json.loads(entry.value), "schema_version": SCHEMA_VERSION + 1})


def other_weights(model, entry):
    first = next(one for one in model.graph.initializer if one.dims and one.data_type == onnx.TensorProto.DOUBLE)
    first.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(first) + 1, first.name))


def no_second_answer(model, entry):
    del model.graph.output[1]


def other_order(model, entry):
    names = [one.name for one in model.graph.output]
    for one, name in zip(model.graph.output, reversed(names), strict=True):
        one.name = name


def foreign_operator(model, entry):
    model.graph.node[-1].op_type = "Relu6"


TAMPERED = {
    other_threshold: "it was changed after it was written",
    another_schema: "its output is",
    a_future_schema: "has verdict schema 3; this gradscore reads 2",
    other_weights: "it was changed after it was written",
    no_second_answer: "its output is",
    other_order: "its graph is invalid|it was changed after it was written",
    foreign_operator: "it uses the operator Relu6",
}


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda one: one.__name__)
def test_tampered_files_are_refused(tmp_path, verdict, tamper):
    path = tmp_path / "v.onnx"
    verdict.save(path)
    model, entry = metadata_of(path)
    tamper(model, entry)
    onnx.save(model, path)
    with pytest.raises(ModelError, match=TAMPERED[tamper]):
        Verdict.load(path)


# ---------------------------------------------------------------- the same every time

FITTED = """
import sys
sys.path.insert(0, {root!r})
from tests.support.planted import rows
from gradscore.verdict import Verdict
given = rows()
for method in {methods}:
    Verdict.fit(given.features, given.right, feature_names=given.names, model_fingerprint="ab" * 32, kind=given.kind,
                label=given.label, method=method, seed=3).save({folder!r} + "/" + method + ".onnx")
"""


def test_the_number_of_threads_changes_no_byte(tmp_path):
    """Each in its own process, for libraries read the variables when they are loaded."""
    methods, folders = ("auto", "max-softmax", "ridge"), {}
    for threads in ("1", "3"):
        folders[threads] = tmp_path / threads
        folders[threads].mkdir()
        code = FITTED.format(root=str(Path(__file__).parents[2]), methods=methods, folder=str(folders[threads]))
        variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **variables}, timeout=300)
    for method in methods:
        made = {(folder / f"{method}.onnx").read_bytes() for folder in folders.values()}
        assert len(made) == 1, method


def test_another_seed_is_another_verdict():
    one, same, other = (fitted(seed=seed).proto.SerializeToString(deterministic=True) for seed in (1, 1, 2))
    assert one == same != other


def test_every_recipe_and_method_has_its_own_name():
    assert not set(RECIPES) & set(METHODS)
    assert "auto" not in {*RECIPES, *METHODS}
