"""A user's own scores join by id, whatever the order of rows and files. What does not fit is refused with a count."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradscore.errors import InputError, MismatchError
from gradscore.tables.extra_columns import ExtraColumns, columns_read, narrowed
from gradscore.tables.table import METADATA_KEY, ScoreTable, schema, to_batch

NAMES = ("fc.l1", "entropy", "max_softmax", "residual")


def table(ids, *, broken=(), precision="float64"):
    made = schema(NAMES, {"model_fingerprint": "ab" * 32, "precision": precision})
    features = np.arange(4.0 * len(ids)).reshape(len(ids), 4)
    errors = ["broken" if name in broken else None for name in ids]
    batch = to_batch(made, ids=ids, labels=np.zeros(len(ids)), features=features, errors=errors)
    return ScoreTable.of(pa.Table.from_batches([batch]))


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def joined(scores, *texts):
    return ExtraColumns.read(texts).join(scores, "known")


def test_columns_become_the_last_features_in_the_order_given(tmp_path):
    scores = table(["a", "b", "c"], precision="float32")
    knn = write(tmp_path / "knn.csv", "id,knn\nc,3\na,1\nb,2\n")
    pq.write_table(
        pa.table({"z": [1.5, 2.5, 3.5], "id": ["a", "b", "c"], "y": [True, False, True]}), tmp_path / "m.parquet"
    )
    found = joined(scores, str(tmp_path / "m.parquet"), knn)
    assert found.feature_names == (*NAMES, "z", "y", "knn")
    assert found.joined_features == ("z", "y", "knn")
    assert found.table.column_names == ["id", "label", "label_name", *NAMES, "z", "y", "knn", "error"]
    assert str(found.table.schema.field("knn").type) == "float"
    np.testing.assert_array_equal(found.features(["z", "y", "knn"]), [[1.5, 1, 1], [2.5, 0, 2], [3.5, 1, 3]])
    np.testing.assert_array_equal(found.features(NAMES), scores.features())
    assert scores.joined_features == ()


def test_a_joined_table_is_a_score_table_like_any_other(tmp_path):
    found = joined(table(["a", "b"]), write(tmp_path / "knn.csv", "id,knn\nb,2\na,1\n"))
    pq.write_table(found.table, tmp_path / "joined.parquet")
    again = ScoreTable.read(tmp_path / "joined.parquet")
    assert (again.feature_names, again.joined_features) == (found.feature_names, ("knn",))
    assert json.loads(again.table.schema.metadata[METADATA_KEY])["model_fingerprint"] == "ab" * 32
    more = joined(again, write(tmp_path / "mine.csv", "id,mine\na,1\nb,2\n"))
    assert more.joined_features == ("knn", "mine")


def test_no_files_leave_the_table_as_it_is():
    scores = table(["a"])
    assert joined(scores) is scores


def test_rows_of_a_table_come_from_several_files_and_those_of_several_tables_from_one(tmp_path):
    one = write(tmp_path / "one.csv", "id,knn\na,1\nnoise/0,7\n")
    two = write(tmp_path / "two.csv", "id,knn\nb,2\n")
    extra = ExtraColumns.read([one, two])
    known, noise = extra.join(table(["b", "a"]), "known"), extra.join(table(["noise/0"]), "noise")
    assert known.features(["knn"]).ravel().tolist() == [2, 1]
    assert noise.features(["knn"]).ravel().tolist() == [7]
    assert extra.unused() == []


def test_ids_that_no_table_has_are_counted(tmp_path):
    extra = ExtraColumns.read([write(tmp_path / "knn.csv", "id,knn\na,1\nb,2\nx,3\ny,4\n")])
    extra.join(table(["a"]), "known")
    extra.join(table(["b"]), "noise")
    assert extra.unused() == [f"{tmp_path / 'knn.csv'}: 2 of 4 ids are in no score table"]


def test_rows_with_an_error_need_no_value(tmp_path):
    found = joined(table(["a", "b"], broken={"b"}), write(tmp_path / "knn.csv", "id,knn\na,1\n"))
    assert found.table.column("knn").to_pylist() == [1.0, None]
    assert np.isnan(found.features()[1]).all()


def test_ids_are_text(tmp_path):
    csv = write(tmp_path / "knn.csv", "id,knn\n007,1\n7,2\n")
    assert joined(table(["7", "007"]), csv).features(["knn"]).ravel().tolist() == [2, 1]
    pq.write_table(pa.table({"id": [7, 8], "n": [1, 2]}), tmp_path / "n.parquet")
    assert joined(table(["8", "7"]), str(tmp_path / "n.parquet")).features(["n"]).ravel().tolist() == [2, 1]


def test_some_columns_can_be_chosen_and_their_direction_said(tmp_path):
    csv = write(tmp_path / "own.csv", "id,note,near,far\na,text,1,2\n")
    extra = ExtraColumns.read([f"{csv}:-far, near"])
    assert dict(extra.signs) == {"far": -1, "near": 1}
    assert extra.join(table(["a"]), "known").joined_features == ("far", "near")
    odd = write(tmp_path / "odd:-far.csv", "id,far\na,1\n")
    assert dict(ExtraColumns.read([odd]).signs) == {"far": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "id,knn\na,1\n",
            r"2 of 3 rows of table known have no 'knn' in .*such as 'b'.*'a' is the first in the file",
        ),
        ("id,knn\n", "3 of 3 rows .* None is the first in the file"),
        ("id,knn\na,1\nb,2\nc,3\nb,4\n", "1 ids more than once .*such as 'b'"),
        (
            "id,entropy\na,1\nb,2\nc,3\n",
            "table known already has a column 'entropy': rename the one that --extra joins",
        ),
        ("id,label\na,1\nb,2\nc,3\n", "already has a column 'label'"),
        ("id,knn\na,1\nb,\nc,3\n", "column 'knn' of .* has no value for 1 ids .*such as 'b'"),
        ("id,knn\na,x\nb,y\nc,z\n", "column 'knn' of .* is string, not numeric: name the columns to join"),
        ("id,knn,knn\na,1,2\n", "has several columns 'knn'"),
        ("name,knn\na,1\n", "has no column 'id' .*it has: name, knn"),
        ("id\na\n", "no column beside id"),
        ("id,knn\na,1,2\n", "cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        joined(table(["a", "b", "c"]), write(tmp_path / "own.csv", content))


def test_files_that_cannot_be_read_are_refused(tmp_path):
    csv = write(tmp_path / "own.csv", "id,knn\na,1\n")
    for text, message in (
        (str(tmp_path / "none.csv"), "no such file"),
        (f"{tmp_path / 'none.csv'}:knn", "no such file"),
        (f"{csv}:mine", "has no column 'mine'"),
        (write(tmp_path / "own.txt", "id,knn\na,1\n"), "must end in .parquet or .csv"),
        (write(tmp_path / "own.parquet", "no"), "cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            ExtraColumns.read([text])


def test_an_id_in_two_files_is_ambiguous_where_a_table_needs_it(tmp_path):
    files = [write(tmp_path / f"{name}.csv", f"id,knn\n0.png,1\n{name},2\n") for name in ("one", "two")]
    assert joined(table(["one", "two"]), *files).features(["knn"]).ravel().tolist() == [2, 2]
    with pytest.raises(InputError, match=r"1 rows of table known are ambiguous.*such as '0.png'.*--extra known=PATH"):
        joined(table(["one", "0.png"]), *files)


def test_a_row_of_a_file_is_for_one_table(tmp_path):
    csv = write(tmp_path / "own.csv", "id,knn\n0.png,1\n1.png,2\n")
    extra = ExtraColumns.read([csv])
    extra.join(table(["0.png", "1.png"]), "known")
    with pytest.raises(
        InputError, match=r"1 ids of .* are in several tables, such as '1.png' in noise: .*--extra noise="
    ):
        extra.join(table(["1.png"]), "noise")


def test_a_file_can_be_for_one_table_alone(tmp_path):
    files = [write(tmp_path / f"{name}.csv", f"id,knn\n0.png,{index}\n") for index, name in enumerate(("one", "a=b"))]
    extra = ExtraColumns.read([f"known={files[0]}:-knn", f"noise={files[1]}:-knn"])
    assert dict(extra.signs) == {"knn": -1}
    extra.require_tables(["known", "noise"])
    assert [extra.join(table(["0.png"]), name).features(["knn"]).item() for name in ("known", "noise")] == [0, 1]
    assert joined(table(["0.png"]), files[1]).joined_features == ("knn",)
    with pytest.raises(InputError, match=r"--extra noise=.*a=b.csv: no table is named so; tables are known"):
        extra.require_tables(["known"])


def test_a_column_has_one_direction(tmp_path):
    files = [write(tmp_path / f"{name}.csv", f"id,knn\n{name},2\n") for name in ("one", "two")]
    with pytest.raises(InputError, match="gives column 'knn' once with - and once without"):
        ExtraColumns.read([f"{files[0]}:-knn", files[1]])


def test_readers_take_their_joined_columns_in_any_order(tmp_path):
    scores = table(["a"])
    wide = joined(scores, write(tmp_path / "own.csv", "id,x,y\na,1,2\n"))
    assert columns_read((*NAMES, "y", "x"), wide, "the verdict") == [0, 1, 2, 3, 5, 4]
    assert columns_read(NAMES, wide, "the verdict") == [0, 1, 2, 3]
    narrow = narrowed((*NAMES, "y"), wide, "the verdict")
    assert (narrow.feature_names, narrow.joined_features) == ((*NAMES, "y"), ("y",))
    assert narrow.features()[0].tolist() == [0, 1, 2, 3, 2]
    with pytest.raises(MismatchError, match=r"the verdict also reads x, y, which the table lacks: join .* --extra"):
        columns_read((*NAMES, "x", "y"), scores, "the verdict")
    with pytest.raises(MismatchError, match="the verdict also reads z, which the table lacks"):
        columns_read((*NAMES, "z", "x"), wide, "the verdict")
    with pytest.raises(MismatchError, match="features differ"):
        columns_read(("fc.l1", "x"), wide, "the verdict")


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_joining_is_a_lookup_by_id(tmp_path_factory, data):
    ids = data.draw(st.lists(st.text("ab0/é ", min_size=1, max_size=4), min_size=1, max_size=8, unique=True))
    shuffled = data.draw(st.permutations(ids))
    values = data.draw(st.lists(st.floats(allow_nan=False), min_size=len(ids), max_size=len(ids)))
    cut = data.draw(st.integers(0, len(ids)))
    folder = tmp_path_factory.mktemp("extra")
    parts = [(shuffled[:cut], values[:cut]), (shuffled[cut:], values[cut:])]
    for index, (names, column) in enumerate(parts):
        pq.write_table(
            pa.table({"id": pa.array(names, pa.string()), "own": pa.array(column, pa.float64())}),
            folder / f"{index}.parquet",
        )
    found = joined(table(ids), str(folder / "0.parquet"), str(folder / "1.parquet"))
    wanted = dict(zip(shuffled, values, strict=True))
    assert found.features(["own"]).ravel().tolist() == [wanted[name] for name in ids]
