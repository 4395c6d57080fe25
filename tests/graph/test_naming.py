"""What makes up a layer and what it is called, as different exporters write the same dense layers."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gradscore import Scorer, prepare

SIZES = (4, 6, 5, 3)


def network(nodes, weights):
    """Three dense layers with Relu between, each node and weight called as the caller wants."""
    rng, graph, initializers, value = np.random.default_rng(0), [], [], "x"
    for index, (product, added, kernel, bias) in enumerate(zip(*nodes, *weights, strict=True)):
        fan_in, fan_out = SIZES[index : index + 2]
        for name, shape in ((kernel, (fan_in, fan_out)), (bias, (fan_out,))):
            initializers.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
        graph.append(helper.make_node("MatMul", [value, kernel], [f"m{index}"], product))
        graph.append(
            helper.make_node("Add", [f"m{index}", bias] if index else [bias, f"m{index}"], [f"a{index}"], added)
        )
        value = f"a{index}"
        if index < 2:
            graph.append(helper.make_node("Relu", [value], [f"r{index}"]))
            value = f"r{index}"
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", s]) for n, s in (("x", 4), (value, 3))]
    made = helper.make_graph(graph, "network", ends[:1], ends[1:], initializers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


PATHS = ("encoder/layers.0/fc", "encoder/layers.1/fc", "head")
MODULES = ["encoder.layers.0.fc", "encoder.layers.1.fc", "head"]
WRITERS = {
    "weights named": (
        (["a", "b", "c"], ["d", "e", "f"]),
        ([f"{m}.weight" for m in MODULES], [f"{m}.bias" for m in MODULES]),
        MODULES,
    ),
    "biases named, as torch's older exporter": (
        ([f"/{path}/MatMul" for path in PATHS], [f"/{path}/Add" for path in PATHS]),
        ([f"onnx::MatMul_{index}" for index in range(3)], [f"{m}.bias" for m in MODULES]),
        MODULES,
    ),
    "nodes named, as tf2onnx": (
        ([f"{path}/MatMul" for path in PATHS], [f"{path}/BiasAdd" for path in PATHS]),
        ([f"{path}/MatMul/ReadVariableOp:0" for path in PATHS], [f"{path}/BiasAdd/ReadVariableOp:0" for path in PATHS]),
        MODULES,
    ),
    "numbered, as skl2onnx": (
        (["MatMul", "MatMul1", "MatMul2"], ["Add", "Add1", "Add2"]),
        (["coefficient", "coefficient1", "coefficient2"], ["intercepts", "intercepts1", "intercepts2"]),
        ["MatMul", "MatMul1", "MatMul2"],
    ),
    "paths that end in no operator": (
        (["block/first", "block/second", "block/third"], ["block/d", "block/e", "block/f"]),
        (["u", "v", "w"], ["p", "q", "r"]),
        ["block/first", "block/second", "block/third"],
    ),
}


def prepared(model, folder):
    onnx.save(model, folder / "c.onnx")
    return prepare(folder / "c.onnx", folder / "s.onnx", overwrite=True)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_product_and_its_bias_are_one_layer(writer, tmp_path):
    nodes, weights, names = WRITERS[writer]
    metadata = prepared(network(nodes, weights), tmp_path)
    assert [layer.name for layer in metadata.layers] == names
    assert [[item.name for item in layer.parameters] for layer in metadata.layers] == [
        list(pair) for pair in zip(*weights, strict=True)
    ]
    assert [layer.op for layer in metadata.layers] == ["MatMul"] * 3


def test_the_name_does_not_change_the_features(tmp_path):
    x = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    features = []
    for nodes, weights, _ in WRITERS.values():
        prepared(network(nodes, weights), tmp_path)
        with Scorer.load(tmp_path / "s.onnx", threads=1) as scorer:
            features.append(scorer.score(x).features)
    for other in features[1:]:
        np.testing.assert_array_equal(other, features[0])


def test_what_is_added_to_a_product_that_others_read_is_a_layer_of_its_own(tmp_path):
    nodes, weights, _ = WRITERS["numbered, as skl2onnx"]
    model = network(nodes, weights)
    model.graph.node.insert(2, helper.make_node("Tanh", ["m0"], ["t"], "tanh"))
    model.graph.node.insert(3, helper.make_node("Mul", ["a0", "t"], ["gated"], "gate"))
    next(node for node in model.graph.node if node.op_type == "Relu").input[0] = "gated"
    assert [layer.name for layer in prepared(model, tmp_path).layers] == ["MatMul", "Add", "MatMul1", "MatMul2"]


def test_parts_of_one_tensor_have_names_of_their_own(tmp_path):
    """A recurrent layer's biases are one tensor; its two directions are one more."""
    rng = np.random.default_rng(2)
    shapes = {"w": (2, 15, 4), "r": (2, 15, 5), "b": (2, 30), "fc.weight": (10, 3)}
    weights = [
        numpy_helper.from_array(0.3 * rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("GRU", ["t", "w", "r", "b"], ["", "h"], "/rnn/GRU", hidden_size=5, direction="bidirectional",
                         linear_before_reset=1),
        helper.make_node("Transpose", ["h"], ["u"], perm=[1, 0, 2]),
        helper.make_node("Flatten", ["u"], ["f"]),
        helper.make_node("MatMul", ["f", "fc.weight"], ["y"]),
    ]  # fmt: skip
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["n", 3, 4]), ("y", ["n", 3]))]
    graph = helper.make_graph(nodes, "recurrent", ends[:1], ends[1:], weights)
    metadata = prepared(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path)
    assert [layer.name for layer in metadata.layers] == ["rnn", "fc"]
    names = [item.name for item in metadata.layers[0].parameters]
    assert len(names) == len(set(names)) == 8
    gradients = Scorer.load(tmp_path / "s.onnx").layer_gradients(np.ones((2, 3, 4), np.float32))["rnn"]
    assert list(gradients) == names
