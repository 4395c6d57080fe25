"""A score table is read back unchanged. Other tables are refused with a clear error."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradscore.errors import InputError, MismatchError
from gradscore.tables import arrow
from gradscore.tables.table import METADATA_KEY, ScoreTable, schema, to_batch

NAMES = ["conv1.l1", "all.kurtosis", "entropy", "max_softmax", "residual"]
METADATA = {"model_fingerprint": "ab" * 32, "source_fingerprint": "cd" * 32, "class_names": ["cat", "dog"]}


def batch(table_schema=None, offset=0):
    values = np.array([[1e-30, -3.0, 0.1, 0.9, 1e-300], [9, 9, 9, 9, 9], [np.nan, np.inf, 1e10, 0.5, 0.5]]) + 0.0
    return to_batch(
        table_schema or schema(NAMES, METADATA),
        ids=[f"{offset + i}.png" for i in range(3)],
        labels=[1, -1, 0],
        features=values,
        errors=[None, "truncated", None],
    )


def write(path, part=None):
    pq.write_table(pa.Table.from_batches([batch() if part is None else part]), path)
    return path


def test_columns_types_and_order():
    found = schema(NAMES, METADATA)
    assert found.names == ["id", "label", "label_name", *NAMES, "error"]
    assert [str(found.field(name).type) for name in ("id", "label", "label_name", "entropy", "error")] == [
        "string",
        "int64",
        "string",
        "double",
        "string",
    ]
    kept = json.loads(found.metadata[METADATA_KEY])
    assert kept["schema_version"] == 1
    assert kept["feature_names"] == NAMES
    assert kept["class_names"] == ["cat", "dog"]


@pytest.mark.parametrize("missing", [[], [0, 3, 17], range(20)])
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64])
def test_arrays_are_as_pyarrow_makes_them(kind, missing):
    wide = np.random.default_rng(0).normal(size=(20, 3)) * 1e3
    wide[5] = np.nan
    masked = np.isin(np.arange(20), missing)
    with np.errstate(invalid="ignore"):
        column = wide.astype(kind)[:, 1]
    made = arrow.numbers(column, arrow.validity(masked))
    made.validate(full=True)
    expected = pa.array(column, mask=masked, from_pandas=False)
    assert (made.type, made.null_count) == (expected.type, expected.null_count)
    np.testing.assert_array_equal(made.to_numpy(zero_copy_only=False), expected.to_numpy(zero_copy_only=False))
    texts = [None if gone else text for gone, text in zip(masked, ["", "a", "ü", "日本", "\0"] * 4, strict=True)]
    made = arrow.strings(texts)
    made.validate(full=True)
    assert made.equals(pa.array(texts, pa.string()))


def test_arrays_of_nothing():
    assert arrow.strings([]).equals(pa.array([], pa.string()))
    assert arrow.numbers(np.empty(0), arrow.validity(np.empty(0, bool))).equals(pa.array([], pa.float64()))
    with pytest.raises(UnicodeEncodeError):
        arrow.strings(["\udcff"])


def test_round_trip(tmp_path):
    table = ScoreTable.read(write(tmp_path / "scores.parquet"))
    assert len(table) == 3
    assert table.ids() == ["0.png", "1.png", "2.png"]
    assert table.labels().tolist() == [1, -1, 0]
    assert table.table.column("label_name").to_pylist() == ["dog", None, "cat"]
    assert table.errors() == [None, "truncated", None]
    assert table.valid().tolist() == [True, False, True]
    features = table.features()
    assert features.dtype == np.float64
    assert features[0].tolist() == [1e-30, -3.0, 0.1, 0.9, 1e-300]
    assert np.isnan(features[1]).all()
    np.testing.assert_array_equal(features[2], [np.nan, np.inf, 1e10, 0.5, 0.5])
    assert table.features(["residual", "conv1.l1"])[0].tolist() == [1e-300, 1e-30]
    assert table.model_fingerprint == "ab" * 32
    assert table.class_names == ("cat", "dog")
    assert table.feature_names == tuple(NAMES)


def test_an_error_row_is_null_but_a_nan_feature_is_a_value(tmp_path):
    column = ScoreTable.read(write(tmp_path / "scores.parquet")).table.column("conv1.l1")
    assert column.is_null().to_pylist() == [False, True, False]
    assert np.isnan(column[2].as_py())


def test_shards_of_a_directory_are_read_in_order(tmp_path):
    write(tmp_path / "part-00001.parquet", batch(offset=3))
    write(tmp_path / "part-00000.parquet")
    (tmp_path / "notes.txt").write_text("not a shard")
    assert ScoreTable.read(tmp_path).ids() == [f"{i}.png" for i in range(6)]


def test_shards_under_a_damaged_manifest_are_refused(tmp_path):
    write(tmp_path / "part-00000.parquet")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="not the manifest of a scoring run"):
        ScoreTable.read(tmp_path)


def test_no_class_names_give_null_names():
    metadata = {**METADATA, "class_names": None}
    found = to_batch(schema(NAMES, metadata), ids=["a"], labels=[5], features=np.zeros((1, 5)))
    assert found.column("label_name").to_pylist() == [None]
    assert found.column("label").to_pylist() == [5]


def test_an_empty_table_reads_back(tmp_path):
    none = to_batch(schema(NAMES, METADATA), ids=[], labels=np.empty(0, np.int64), features=np.empty((0, 5)))
    table = ScoreTable.read(write(tmp_path / "none.parquet", none))
    assert len(table) == 0
    assert table.features().shape == (0, 5)


def test_extra_columns_are_kept(tmp_path):
    table = pa.Table.from_batches([batch()]).append_column("energy", pa.array([1.0, 2.0, 3.0]))
    pq.write_table(table, tmp_path / "more.parquet")
    assert ScoreTable.read(tmp_path / "more.parquet").table.column("energy").to_pylist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("names", "metadata", "message"),
    [
        (["a", "a"], METADATA, "unique"),
        (["label"], METADATA, r"\['label'\]"),
        (["a"], {}, "lacks model_fingerprint"),
        ([], METADATA, "lacks feature_names"),
    ],
)
def test_bad_schema(names, metadata, message):
    with pytest.raises(InputError, match=message):
        schema(names, metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.zeros((2, 4))}, r"features \(2, 4\); the schema has 5"),
        ({"labels": [0]}, r"labels \(1,\)"),
        ({"errors": [None]}, "1 errors"),
        ({"labels": [0, 2]}, "label 2 is outside the 2 class names"),
        ({"labels": [0, -1]}, "label -1 is outside"),
    ],
)
def test_bad_batch(change, message):
    good = {"ids": ["a", "b"], "labels": [0, 1], "features": np.zeros((2, 5)), "errors": [None, None]}
    with pytest.raises(InputError, match=message):
        to_batch(schema(NAMES, METADATA), **{**good, **change})


def test_missing_foreign_and_broken_files(tmp_path):
    with pytest.raises(InputError, match=r"no such score table.*gradscore score"):
        ScoreTable.read(tmp_path / "none.parquet")
    with pytest.raises(InputError, match=r"no \.parquet file in directory"):
        ScoreTable.read(tmp_path)
    text = tmp_path / "text.parquet"
    text.write_text("id,label\n")
    with pytest.raises(InputError, match="cannot be read as a Parquet file"):
        ScoreTable.read(text)
    cut = write(tmp_path / "cut.parquet")
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"cut\.parquet cannot be read"):
        ScoreTable.read(cut)
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "foreign.parquet")
    with pytest.raises(InputError, match=r"foreign\.parquet is not a score table"):
        ScoreTable.read(tmp_path / "foreign.parquet")


def changed(**metadata):
    table = pa.Table.from_batches([batch()])
    kept = json.loads(table.schema.metadata[METADATA_KEY])
    return table.replace_schema_metadata({METADATA_KEY: json.dumps({**kept, **metadata})})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (lambda: changed(schema_version=2), "schema version 2; this gradscore reads 1"),
        (lambda: changed(feature_names=[*NAMES, "gone"]), "lacks the columns gone"),
        (lambda: changed(feature_names="l1"), "no list `feature_names`"),
        (lambda: changed(model_fingerprint=None), "lacks model_fingerprint"),
        (lambda: changed().drop_columns(["label", "residual"]), "lacks the columns label, residual"),
        (lambda: changed().replace_schema_metadata({METADATA_KEY: "{"}), "not JSON"),
        (lambda: changed().replace_schema_metadata({METADATA_KEY: "[]"}), "schema version None"),
        (
            lambda: changed().set_column(3, "conv1.l1", pa.array([1, 2, 3])),
            "column 'conv1.l1' of the table is int64, but a score table has double",
        ),
    ],
)
def test_tables_that_are_not_ours(table, message):
    with pytest.raises(InputError, match=message):
        ScoreTable.of(table())


def test_tables_of_different_models_do_not_join():
    one = ScoreTable.of(changed())
    with pytest.raises(MismatchError, match="belongs to abababababab…, another table to eeeeeeeeeeee…"):
        ScoreTable.concatenate([one, ScoreTable.of(changed(model_fingerprint="ee" * 32))])
    fewer = ScoreTable.of(changed(feature_names=NAMES[:-1]))
    with pytest.raises(MismatchError, match=r"has 5, another table has 4; .* feature 5: 'residual' against nothing"):
        ScoreTable.concatenate([one, fewer])
    swapped = ScoreTable.of(changed(feature_names=["all.kurtosis", "conv1.l1", *NAMES[2:]]))
    with pytest.raises(MismatchError, match=r"feature 1: 'conv1.l1' against 'all.kurtosis'"):
        ScoreTable.concatenate([one, swapped])
    with pytest.raises(InputError, match="no score tables"):
        ScoreTable.concatenate([])


def test_an_unknown_feature_is_named():
    with pytest.raises(InputError, match=r"no feature 'fc.l1'; it has: conv1.l1"):
        ScoreTable.of(changed()).features(["fc.l1"])
