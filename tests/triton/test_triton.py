"""Triton model repositories: what is written, that it fits the model, and that what does not fit is found."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from gradscore.errors import InputError, MismatchError, ModelError, OutputExistsError
from gradscore.runtime.session import open_session
from gradscore.triton.repository import _TYPES, check_repository, write_repository

CONFIG = """\
name: "digits"
backend: "onnxruntime"
max_batch_size: 8
dynamic_batching { max_queue_delay_microseconds: 500 }
input [
  {
    name: "x"
    data_type: TYPE_FP32
    dims: [ 1, -1 ]
  }
]
output [
  {
    name: "y"
    data_type: TYPE_FP32
    dims: [ 1, -1 ]
  },
  {
    name: "mean"
    data_type: TYPE_FP32
    dims: [ 1 ]
    reshape { shape: [ ] }
  }
]
"""


def tensor(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def saved(path, inputs, outputs, nodes=()):
    graph = helper.make_graph(list(nodes), "g", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def model(tmp_path):
    """x [B, 1, n] -> y, the same, and its mean [B]."""
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
    ]
    outputs = [tensor("y", ["batch", 1, "n"]), tensor("mean", ["batch"])]
    return saved(tmp_path / "model.onnx", [tensor("x", ["batch", 1, "n"])], outputs, nodes)


@pytest.fixture
def folder(model, tmp_path):
    return write_repository(model, tmp_path / "repository", name="digits", max_batch_size=8)


def test_a_repository_holds_the_model_and_its_configuration(folder, model, tmp_path):
    assert folder == tmp_path / "repository/digits"
    assert (folder / "config.pbtxt").read_text() == CONFIG
    assert (folder / "1/model.onnx").read_bytes() == model.read_bytes()
    assert sorted(path.name for path in folder.rglob("*")) == ["1", "config.pbtxt", "model.onnx"]


def test_shapes_told_are_those_that_come_out(folder):
    session = open_session((folder / "1/model.onnx").read_bytes())
    y, mean = session.run(["y", "mean"], {"x": np.ones((8, 1, 3), np.float32)})
    assert y.shape == (8, 1, 3)
    assert mean.shape == (8,)


def test_the_file_name_is_the_default_name(model, tmp_path):
    assert write_repository(model, tmp_path / "models").name == "model"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("TYPE_FP32", "TYPE_FP16", "says that input 'x' is TYPE_FP16 ['batch', 1, -1], the model's is TYPE_FP32"),
        ("[ 1, -1 ]", "[ 1, 7 ]", "input 'x' is TYPE_FP32 ['batch', 1, 7]"),
        ("reshape { shape: [ ] }", "", "output 'mean' is TYPE_FP32 ['batch', 1], the model's is TYPE_FP32 ['batch']"),
        ('"mean"', '"median"', "lists the outputs ['median', 'y'], the model has ['mean', 'y']"),
        ('name: "digits"', 'name: "letters"', "names the model 'letters', its folder is 'digits'"),
        ('"onnxruntime"', '"python"', 'must say backend: "onnxruntime"'),
        ("max_batch_size: 8", "max_batch_size: 0", "max_batch_size of 1 or more"),
    ],
)
def test_a_configuration_that_does_not_fit_is_found(folder, old, new, message):
    (folder / "config.pbtxt").write_text(CONFIG.replace(old, new, 1))
    with pytest.raises(MismatchError) as refusal:
        check_repository(folder)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        CONFIG[:-3],
        CONFIG + "}",
        CONFIG.replace("[ 1, -1 ]", "[ 1, : ]"),
        "name: 'x'",
        CONFIG.replace("8", "many", 1),
        CONFIG.replace("data_type", "type", 1),
    ],
)
def test_what_is_no_protobuf_text_is_refused(folder, text):
    (folder / "config.pbtxt").write_text(text)
    with pytest.raises(ModelError, match=r"config\.pbtxt is not protobuf text"):
        check_repository(folder)


def test_hand_written_additions_and_styles_are_read(folder):
    text = CONFIG.replace("dims: [ 1, -1 ]", "dims: 1 dims: -1  # as the server itself prints it")
    text += "instance_group [ { kind: KIND_CPU, count: 2 } ]\n# the end"
    (folder / "config.pbtxt").write_text(text)
    check_repository(folder)


@given(
    tensors=st.dictionaries(
        st.text(st.characters(exclude_categories=["C"]), min_size=1),
        st.tuples(st.sampled_from(sorted(_TYPES)), st.lists(st.one_of(st.integers(1, 9), st.just("n")), max_size=3)),
        min_size=2,
        max_size=6,
    )
)
@settings(max_examples=30, deadline=None)
def test_any_names_types_and_shapes_come_back(tensors, tmp_path_factory):
    values = [tensor(name, ["batch", *shape], kind) for name, (kind, shape) in tensors.items()]
    folder = tmp_path_factory.mktemp("drawn")
    check_repository(write_repository(saved(folder / "m.onnx", values[:1], values[1:]), folder))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor("y", [4, 10]), "first axis of 'y' is not the batch"),
        (tensor("y", []), "first axis of 'y' is not the batch"),
        (tensor("y", None), "'y' is no tensor of a type and rank"),
        (tensor("y", ["batch"], TensorProto.COMPLEX64), "'y' is no tensor of a type and rank"),
        (helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None), "'y' is no tensor of a type and rank"),
    ],
)
def test_a_model_that_cannot_be_batched_is_refused(value, message, tmp_path):
    path = saved(tmp_path / "m.onnx", [tensor("x", ["batch", 2])], [value])
    with pytest.raises(ModelError) as refusal:
        write_repository(path, tmp_path / "repository")
    assert message in str(refusal.value)
    assert not (tmp_path / "repository").exists()


def test_nothing_is_replaced_unasked(folder, model):
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_repository(model, folder.parent, name="digits")
    assert (folder / "config.pbtxt").read_text() == CONFIG
    write_repository(model, folder.parent, name="digits", max_batch_size=16, overwrite=True)
    assert "max_batch_size: 16" in (folder / "config.pbtxt").read_text()


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "two words"])
def test_a_name_that_is_no_folder_is_refused(name, model, tmp_path):
    with pytest.raises(InputError, match="cannot name a Triton model"):
        write_repository(model, tmp_path, name=name)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="cannot be read as an ONNX model"):
        write_repository(tmp_path / "m.onnx", tmp_path)


def test_a_model_that_is_not_one_file_is_refused(tmp_path):
    path = saved(tmp_path / "m.onnx", [tensor("x", ["batch", 2])], [tensor("y", ["batch", 2])])
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(4096, np.float32), "w"))
    onnx.save(model, path, save_as_external_data=True, location="m.weights")
    with pytest.raises(ModelError, match="weights in a file beside it"):
        write_repository(path, tmp_path / "repository")
