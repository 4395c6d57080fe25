"""Classifiers that cannot be prepared, each with its message; and those of every opset and shape that can."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gradscore import InputError, ModelError, OutputExistsError, Scorer, UnsupportedOpError, prepare
from gradscore.graph import checking

CLASSES = 3


def weights(rng=None, **shapes):
    rng = rng or np.random.default_rng(11)
    return [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in shapes.items()
    ]


def tensor(name, *extents, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, extents)


def model_of(nodes, initializers, *, inputs=None, outputs=None, opset=18, domains=()):
    graph = helper.make_graph(
        nodes,
        "classifier",
        inputs or [tensor("x", "batch", 4)],
        outputs or [tensor("y", "batch", CLASSES)],
        initializers,
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def dense(*, opset=18, inputs=None, outputs=None, activation="Relu"):
    nodes = [
        helper.make_node("Gemm", ["x", "a.weight", "a.bias"], ["h"], "first"),
        helper.make_node(activation, ["h"], ["r"], "activation"),
        helper.make_node("Gemm", ["r", "b.weight", "b.bias"], ["y"], "second"),
    ]
    initializers = weights(**{"a.weight": (4, 5), "a.bias": (5,), "b.weight": (5, CLASSES), "b.bias": (CLASSES,)})
    return model_of(nodes, initializers, inputs=inputs, outputs=outputs, opset=opset)


def convolutional(*, opset, batch="batch"):
    nodes = [
        helper.make_node("Conv", ["x", "c.weight", "c.bias"], ["h"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("LeakyRelu", ["h"], ["r"], "activation", alpha=0.1),
        helper.make_node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "d.weight", "d.bias"], ["z"], "dense"),
        helper.make_node("Softmax", ["z"], ["y"], "softmax", axis=1),
    ]
    initializers = weights(
        **{"c.weight": (2, 1, 3, 3), "c.bias": (2,), "d.weight": (18, CLASSES), "d.bias": (CLASSES,)}
    )
    return model_of(
        nodes, initializers, inputs=[tensor("x", batch, 1, 6, 6)], outputs=[tensor("y", batch, CLASSES)], opset=opset
    )


@pytest.fixture
def attempt(tmp_path):
    """Return a function that saves a model and prepares it."""

    def run(model, **options):
        onnx.save(model, tmp_path / "c.onnx")
        return prepare(tmp_path / "c.onnx", tmp_path / "s.onnx", **options)

    yield run
    assert not list(tmp_path.glob("*.part"))


def refused(error, message, attempt, model, **options):
    with pytest.raises(error, match=message) as caught:
        attempt(model, **options)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match=r"absent\.onnx: no such file"):
        prepare(tmp_path / "absent.onnx", tmp_path / "s.onnx")


@pytest.mark.parametrize(
    "content", [b"", b"id,label\n1,2\n", b"\x89PNG\r\n\x1a\n" + bytes(200), bytes(64), np.arange(99.0).tobytes()]
)
def test_files_that_are_not_onnx(content, tmp_path):
    (tmp_path / "c.onnx").write_bytes(content)
    with pytest.raises(
        ModelError, match=r"c\.onnx.*(truncated or not an ONNX model|not an ONNX model, or an empty one)"
    ):
        prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")
    assert not (tmp_path / "s.onnx").exists()


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_truncated_files(share, tmp_path):
    content = convolutional(opset=18).SerializeToString()
    (tmp_path / "c.onnx").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError) as caught:
        prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")
    assert "\n" not in str(caught.value)


def test_a_scoring_model_is_not_a_classifier_nor_overwritten(attempt, tmp_path):
    attempt(dense())
    before = (tmp_path / "s.onnx").read_bytes()
    refused(OutputExistsError, r"s\.onnx exists: .*--overwrite", attempt, dense())
    assert (tmp_path / "s.onnx").read_bytes() == before
    attempt(dense(activation="Tanh"), overwrite=True)
    assert (tmp_path / "s.onnx").read_bytes() != before


def test_a_model_without_weights(attempt):
    nodes = [helper.make_node("Relu", ["x"], ["y"], "only")]
    refused(ModelError, "no layer with weights", attempt, model_of(nodes, [], inputs=[tensor("x", "batch", CLASSES)]))


def test_an_operator_without_rule_is_named_with_its_node(attempt):
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], "dense"),
        helper.make_node("Det", ["m"], ["d"], "volume"),
        helper.make_node("Reshape", ["h", "square"], ["m"], "to_square"),
        helper.make_node("Reshape", ["d", "column"], ["e"], "to_column"),
        helper.make_node("Gemm", ["e", "v", "c"], ["y"], "last"),
    ]
    nodes = [nodes[0], nodes[2], nodes[1], nodes[3], nodes[4]]
    shapes = [numpy_helper.from_array(np.array(s), n) for s, n in (([-1, 2, 2], "square"), ([-1, 1], "column"))]
    model = model_of(nodes, [*weights(w=(4, 4), b=(4,), v=(1, CLASSES), c=(CLASSES,)), *shapes])
    refused(UnsupportedOpError, "Det", attempt, model)


def test_a_custom_domain_is_named(attempt):
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], "dense"),
        helper.make_node("Fancy", ["h"], ["y"], "fancy", domain="com.example"),
    ]
    model = model_of(nodes, weights(w=(4, CLASSES), b=(CLASSES,)), domains=["com.example"])
    refused(UnsupportedOpError, r"'fancy' is com\.example\.Fancy.*standard operators only", attempt, model)


def test_a_subgraph_is_refused(attempt):
    branch = [
        helper.make_graph([helper.make_node(op, ["h"], [f"{op}_out"])], op, [], [tensor(f"{op}_out", "batch", CLASSES)])
        for op in ("Relu", "Tanh")
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], "dense"),
        helper.make_node("ReduceMax", ["h"], ["largest"], "largest", keepdims=0),
        helper.make_node("Greater", ["largest", "zero"], ["flag"], "compare"),
        helper.make_node("If", ["flag"], ["y"], "branching", then_branch=branch[0], else_branch=branch[1]),
    ]
    zero = numpy_helper.from_array(np.float32(0), "zero")
    model = model_of(nodes, [*weights(w=(4, CLASSES), b=(CLASSES,)), zero])
    refused(UnsupportedOpError, r"'branching' \(If\) has a subgraph", attempt, model)


def external(model, location):
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for initializer in model.graph.initializer:
        if initializer.name == "a.weight":
            raw = initializer.raw_data
            initializer.ClearField("raw_data")
            initializer.data_location = TensorProto.EXTERNAL
            for key, value in {"location": location, "offset": "0", "length": str(len(raw))}.items():
                initializer.external_data.add(key=key, value=value)
            return model, raw
    raise AssertionError("no such weight")


def test_weights_in_a_file_beside_are_read(tmp_path):
    plain = dense()
    model, raw = external(plain, "c.onnx.data")
    (tmp_path / "c.onnx.data").write_bytes(raw)
    (tmp_path / "c.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "plain.onnx").write_bytes(plain.SerializeToString())
    inputs = np.random.default_rng(2).standard_normal((4, 4)).astype(np.float32)
    scores = []
    for name in ("c", "plain"):
        prepare(tmp_path / f"{name}.onnx", tmp_path / f"{name}.s.onnx")
        scores.append(Scorer.load(tmp_path / f"{name}.s.onnx").score(inputs).features)
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "sub/../../secret.bin"])
def test_weights_outside_the_folder_are_refused(location, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "sub").mkdir()
    model, raw = external(dense(), location)
    (tmp_path / "secret.bin").write_bytes(raw)
    (folder / "c.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"'a.weight' points outside the model's folder"):
        prepare(folder / "c.onnx", folder / "s.onnx")


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    model, raw = external(dense(), "weights.bin")
    (tmp_path / "secret.bin").write_bytes(raw)
    (folder / "weights.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "c.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"points outside the model's folder"):
        prepare(folder / "c.onnx", folder / "s.onnx")


def test_a_missing_weight_file_is_named(tmp_path):
    model, _ = external(dense(), "weights.bin")
    (tmp_path / "c.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"file of weight 'a.weight' is missing \(weights\.bin\)"):
        prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")


def test_a_short_weight_file_is_named(tmp_path):
    model, raw = external(dense(), "weights.bin")
    (tmp_path / "c.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "weights.bin").write_bytes(raw[:-4])
    with pytest.raises(ModelError, match=r"a\.weight"):
        prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")


def two_heads():
    model = dense(outputs=[tensor("y", "batch", CLASSES), tensor("aux", "batch", 5)])
    model.graph.node.append(helper.make_node("Tanh", ["h"], ["aux"], "auxiliary"))
    return model


def test_one_of_several_outputs_is_named(attempt):
    refused(ModelError, r"2 outputs .*y.*aux.*--logits NAME", attempt, two_heads())
    refused(ModelError, r"no output 'z'.*--logits", attempt, two_heads(), logits="z")
    assert attempt(two_heads(), logits="aux").classes == 5
    assert attempt(two_heads(), logits="y", overwrite=True).classes == CLASSES


def test_an_output_that_is_no_class_score(attempt):
    model = dense(outputs=[tensor("y", "batch", CLASSES)])
    model.graph.node.append(helper.make_node("ReduceSum", ["y"], ["total"], "sum"))
    del model.graph.output[:]
    model.graph.output.append(tensor("total", 1, 1))
    refused(ModelError, r"class scores|\[batch, classes\]", attempt, model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": ["a", "b"]}, "2 class names for 3 classes: give one name a class with --class-names"),
        ({"class_names": ["a", "b", "a"]}, "class names repeat"),
        ({"engine": "tape"}, "no gradient engine 'tape': --engine takes ort-training"),
        ({"color": "sepia"}, "--color is 'sepia': it takes strict, convert"),
        ({"std": [0.0]}, r"--std \[0\.0\]: they must be positive"),
        ({"mean": [0.1, 0.2]}, "--mean has 2 numbers for 1 channels"),
    ],
)
def test_options_that_cannot_be(options, message, attempt, tmp_path):
    refused(InputError, message, attempt, convolutional(opset=18), **options)
    assert not (tmp_path / "s.onnx").exists()


def test_class_names_left_by_the_exporter_are_kept(attempt):
    model = dense()
    helper.set_model_props(model, {"gradscore.class_names": json.dumps(["x", "y", "z"])})
    assert attempt(model).class_names == ("x", "y", "z")
    assert attempt(model, class_names=["k", "l", "m"], overwrite=True).class_names == ("k", "l", "m")


def logits_by(path, inputs):
    from gradscore.runtime.session import open_session

    session = open_session(path)
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


@pytest.mark.parametrize("opset", range(13, 22))
def test_every_opset_gives_the_same_features(opset, tmp_path):
    inputs = np.random.default_rng(3).standard_normal((5, 1, 6, 6)).astype(np.float32)
    features = []
    for version in (18, opset):
        onnx.save(convolutional(opset=version), tmp_path / "c.onnx")
        metadata = prepare(tmp_path / "c.onnx", tmp_path / "s.onnx", overwrite=True)
        assert [layer.name for layer in metadata.layers] == ["c", "d"]
        scores = Scorer.load(tmp_path / "s.onnx").score(inputs)
        np.testing.assert_allclose(scores.max_softmax, logits_by(tmp_path / "c.onnx", inputs).max(1), rtol=1e-5)
        features.append(scores.features)
    np.testing.assert_allclose(features[1], features[0], rtol=1e-6, atol=1e-9)


def test_an_opset_that_is_too_old(attempt):
    refused(ModelError, r"opset is \d+, this needs \d+ or newer: export it again", attempt, dense(opset=6))


def test_a_fixed_batch_of_one_becomes_dynamic(attempt, tmp_path):
    attempt(convolutional(opset=18, batch=1))
    inputs = np.random.default_rng(3).standard_normal((5, 1, 6, 6)).astype(np.float32)
    scorer = Scorer.load(tmp_path / "s.onnx")
    whole = scorer.score(inputs)
    for row in range(5):
        np.testing.assert_allclose(scorer.score(inputs[row : row + 1]).features[0], whole.features[row], rtol=1e-5)


def test_a_batch_fixed_by_a_reshape_is_told_once(attempt, capfd):
    model = convolutional(opset=18)
    flatten = next(node for node in model.graph.node if node.op_type == "Flatten")
    flatten.CopyFrom(helper.make_node("Reshape", ["p", "fixed"], ["f"], "reshape"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 18]), "fixed"))
    refused(ModelError, "dynamic batch dimension", attempt, model)
    assert capfd.readouterr() == ("", "")  # the runtime does not log what we say


def test_two_inputs_are_scored_by_name(attempt, tmp_path, rng):
    model = dense(inputs=[tensor("x", "batch", 4), tensor("shift", "batch", 4)])
    model.graph.node[0].input[0] = "moved"
    model.graph.node.insert(0, helper.make_node("Add", ["x", "shift"], ["moved"], "move"))
    attempt(model)
    scorer = Scorer.load(tmp_path / "s.onnx")
    x, shift = rng.standard_normal((2, 3, 4)).astype(np.float32)
    prepare_plain = tmp_path / "plain"
    prepare_plain.mkdir()
    onnx.save(dense(), prepare_plain / "c.onnx")
    prepare(prepare_plain / "c.onnx", prepare_plain / "s.onnx")
    expected = Scorer.load(prepare_plain / "s.onnx").score(x + shift)
    np.testing.assert_allclose(scorer.score({"x": x, "shift": shift}).features, expected.features, rtol=1e-5, atol=1e-8)
    with pytest.raises(InputError, match=r"inputs x, shift.*pass a mapping"):
        scorer.score(x)


@pytest.mark.parametrize(("kind", "name"), [(TensorProto.DOUBLE, "DOUBLE"), (TensorProto.STRING, "STRING")])
def test_inputs_of_other_types_are_refused(kind, name, attempt):
    model = dense(inputs=[tensor("raw", "batch", 4, kind=kind)])
    model.graph.node.insert(0, helper.make_node("Cast", ["raw"], ["x"], "cast", to=TensorProto.FLOAT))
    refused(ModelError, f"input 'raw' is of type {name}", attempt, model)


@pytest.mark.parametrize("kinks", [{(3, 0)}, {(3, 0), (3, 1)}, {(1, 0)}, {(3, 0), (1, 1), (1, 2)}])
def test_a_model_is_not_refused_for_an_input_at_a_kink(kinks, tmp_path, monkeypatch):
    """Rounding may flip a sign or a maximum at one input; what is wrong with a model is wrong at the next one too."""
    met = meet_kinks(kinks, monkeypatch)
    onnx.save(dense(), tmp_path / "c.onnx")
    prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")
    assert kinks <= set(met)


@pytest.mark.parametrize("size", [1, 3])
def test_a_model_that_differs_at_every_input_is_refused(size, tmp_path, monkeypatch):
    meet_kinks({(size, draw) for draw in range(9)}, monkeypatch)
    onnx.save(dense(), tmp_path / "c.onnx")
    with pytest.raises(ModelError, match="differs at every input"):
        prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")
    assert not (tmp_path / "s.onnx").exists()


def meet_kinks(kinks, monkeypatch):
    """Let comparisons fail after inputs of these batch sizes and draws; returns the inputs that were drawn."""
    met, draw_batch, compare = [], checking._batch, checking._compare

    def drawn(inputs, size, draw):
        met.append((size, draw))
        return draw_batch(inputs, size, draw)

    def compared(what, *values):
        if met[-1] in kinks:
            raise checking._DifferenceError("differs at every input")
        compare(what, *values)

    monkeypatch.setattr(checking, "_batch", drawn)
    monkeypatch.setattr(checking, "_compare", compared)
    return met
