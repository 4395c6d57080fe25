"""Metadata of model files against the onnx package's own reader, and the errors of damaged files."""

import json

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from gradscore import ModelError, prepare
from gradscore.model import properties
from gradscore.model.file_kinds import METADATA_KEY, FileKind, kind_of
from gradscore.model.metadata import ModelMetadata
from gradscore.model.model_file import identify, read_metadata, read_self_scoring
from gradscore.model.properties import read_properties
from gradscore.model.selfscoring import SelfScoringMetadata

MODEL = ModelMetadata("", (), "y", 2, ())
FUSED = SelfScoringMetadata("", "", (), 2, (), {})
GRAPH, PROPERTY = b"\x3a", b"\x72"


def classifier():
    """One dense layer."""
    weights = [
        numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in (("w", (3, 2)), ("b", (2,)))
    ]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        "dense",
        [helper.make_tensor_value_info("x", 1, ["N", 3])],
        [helper.make_tensor_value_info("y", 1, ["N", 2])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(path, **properties_):
    model = classifier()
    helper.set_model_props(model, properties_)
    onnx.save(model, path)
    return path


def field(tag, content):
    assert len(content) < 128
    return tag + bytes([len(content)]) + content


def entry(key, value):
    return field(PROPERTY, field(b"\x0a", key) + field(b"\x12", value))


def test_properties_are_those_of_the_onnx_package(tmp_path):
    path = saved(tmp_path / "m.onnx", a="1", long="é" * 50_000, empty="")
    model = onnx.load(path)
    assert read_properties(path) == {item.key: item.value for item in model.metadata_props}


def test_properties_stand_anywhere_and_the_last_of_a_key_counts(tmp_path):
    version, graph = b"\x08\x08", field(GRAPH, b"")
    path = tmp_path / "m.onnx"
    path.write_bytes(version + entry(b"a", b"1") + entry(b"b", b"2") + graph + entry(b"a", b"3"))
    assert read_properties(path) == {"a": "3", "b": "2"}
    assert {item.key: item.value for item in onnx.load(path, load_external_data=False).metadata_props}["a"] == "3"


def test_unknown_fields_are_skipped(tmp_path):
    path = tmp_path / "m.onnx"
    unknown = b"\xc8\x3e\xff\xff\x03" + b"\xc9\x3e" + bytes(8) + b"\xcd\x3e" + bytes(4) + field(b"\xca\x3e", b"text")
    path.write_bytes(unknown + field(GRAPH, b"") + entry(b"a", b"1") + unknown)
    assert read_properties(path) == {"a": "1"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it has no graph"),
        (b"\x08\x08", "it has no graph"),
        (b"PAR1 what follows", "a field of 49 bytes reaches beyond the end"),
        (b"\x00\x00", "no field of number 0"),
        (field(GRAPH, b"abc")[:-1], "a field of 3 bytes reaches beyond the end"),
        (field(GRAPH, b"") + b"\x72\xff\xff\xff\xff\x7f", "reaches beyond the end"),
        (field(GRAPH, b"") + field(PROPERTY, b"\x0a\x05abc"), "a field of 5 bytes reaches beyond the end"),
        (field(GRAPH, b"") + b"\x72", "ends within a number"),
        (field(GRAPH, b"") + b"\x08" + b"\x80" * 10 + b"\x00", "a number of more than 10 bytes"),
        (field(GRAPH, b"") + entry(b"a", b"\xff"), "can't decode"),
        (field(GRAPH, b"") + b"\x08\x01" * 100_000, "more than 100,000 fields"),
    ],
)
def test_what_is_no_onnx_file_is_refused_by_name(content, problem, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"m\.onnx is not an ONNX file \(.*{problem}"):
        read_properties(path)


def test_more_properties_than_a_model_has_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(properties, "LARGEST", 1000)
    assert read_properties(saved(tmp_path / "few.onnx", a="1" * 900))
    with pytest.raises(ModelError, match=r"many\.onnx has more than 1,000 bytes of properties"):
        read_properties(saved(tmp_path / "many.onnx", a="1" * 600, b="1" * 600))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (None, FileKind.CLASSIFIER),
        (MODEL.to_json(), FileKind.SCORING),
        (FUSED.to_json(), FileKind.SELF_SCORING),
        ('{"kind":"verdict"}', FileKind.VERDICT),
        ('{"kind":"of another time"}', FileKind.SCORING),
        ("[]", FileKind.SCORING),
        ("{", FileKind.SCORING),
    ],
)
def test_kinds(text, kind, tmp_path):
    assert kind_of(text) is kind
    assert identify(saved(tmp_path / "m.onnx", **({} if text is None else {METADATA_KEY: text}))) is kind


def test_each_kind_is_read_as_itself(tmp_path):
    assert read_metadata(saved(tmp_path / "s.onnx", gradscore=MODEL.to_json())) == MODEL
    assert read_self_scoring(saved(tmp_path / "f.onnx", gradscore=FUSED.to_json())) == FUSED


def test_a_written_model_says_what_prepare_returned(tmp_path):
    saved(tmp_path / "c.onnx")
    assert prepare(tmp_path / "c.onnx", tmp_path / "s.onnx") == read_metadata(str(tmp_path / "s.onnx"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"m\.onnx is an ONNX model but not a scoring model: run `gradscore prepare"),
        (FUSED.to_json(), r"m\.onnx is a self-scoring model"),
        ('{"kind":"verdict"}', r"m\.onnx is a verdict, not a scoring model"),
        ("{", r"m\.onnx has damaged gradscore metadata"),
        (json.dumps({"format_version": 99}), r"m\.onnx has scoring-model format 99"),
    ],
)
def test_the_error_names_the_kind_of_another_file(text, message, tmp_path):
    path = saved(tmp_path / "m.onnx", **({} if text is None else {METADATA_KEY: text}))
    with pytest.raises(ModelError, match=message):
        read_metadata(path)


def test_no_file_is_a_model_error(tmp_path):
    for read in (identify, read_metadata, read_self_scoring):
        with pytest.raises(ModelError, match=r"absent\.onnx: no such file"):
            read(tmp_path / "absent.onnx")
    with pytest.raises(ModelError, match="no such file"):
        read_metadata(tmp_path)
