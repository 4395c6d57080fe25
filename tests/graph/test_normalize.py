"""Models as they come: every opset and IR version, control flow, other domains, what depends on no input."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from gradscore import ModelError, Scorer, UnsupportedOpError, prepare
from gradscore.graph.normalize.decompositions import RULES, SHAPED_RULES
from gradscore.graph.normalize.dialect import OPSET, normalize

CLASSES = 3
NEWEST = onnx.defs.onnx_opset_version()
OPSETS = (7, 8, 9, 10, 11, 12, 13, 15, 17, 18, 19, 20, 21, 22, 23, 24, NEWEST)


def tensor(name, *extents, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, extents)


def weights(**shapes):
    rng = np.random.default_rng(4)
    return [
        numpy_helper.from_array((0.4 * rng.standard_normal(shape)).astype(np.float32), name.replace("_", "."))
        for name, shape in shapes.items()
    ]


def model_of(nodes, initializers, *, inputs, outputs, opset=18, ir_version=8, domains=(), functions=()):
    graph = helper.make_graph(nodes, "classifier", inputs, outputs, initializers)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version, functions=list(functions))


def convolutional(opset, ir_version=8):
    """The same network as each opset writes it: attributes where inputs came later, and the other way round."""
    unsqueezed = (
        ([helper.make_node("Unsqueeze", ["f"], ["u"], axes=[1])], [])
        if opset < 13
        else ([helper.make_node("Unsqueeze", ["f", "one"], ["u"])], [numpy_helper.from_array(np.array([1]), "one")])
    )
    squeezed = helper.make_node("ReduceMean", ["u"], ["m"], axes=[1], keepdims=0)
    if opset >= 18:
        squeezed = helper.make_node("ReduceMean", ["u", "one"], ["m"], keepdims=0)
    clipped = helper.make_node("Clip", ["b"], ["r"], min=0.0, max=6.0)
    limits = []
    if opset >= 11:
        clipped = helper.make_node("Clip", ["b", "low", "high"], ["r"])
        limits = [numpy_helper.from_array(np.float32(value), name) for name, value in (("low", 0), ("high", 6))]
    nodes = [
        helper.make_node("Conv", ["x", "c.weight", "c.bias"], ["h"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["h", "n.weight", "n.bias", "mean", "var"], ["b"], "norm"),
        clipped,
        helper.make_node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Dropout", ["p"], ["q"], "dropout"),
        helper.make_node("Flatten", ["q"], ["f"], "flatten"),
        *unsqueezed[0],
        squeezed,
        helper.make_node("Gemm", ["m", "d.weight", "d.bias"], ["z"], "dense"),
        helper.make_node("Softmax", ["z"], ["y"], "softmax", axis=1),
    ]
    shapes = {
        "c_weight": (2, 1, 3, 3),
        "c_bias": (2,),
        "n_weight": (2,),
        "n_bias": (2,),
        "d_weight": (18, CLASSES),
        "d_bias": (CLASSES,),
    }
    running = [
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in (("mean", [0.1, -0.2]), ("var", [0.8, 1.3]))
    ]
    return model_of(
        nodes, [*weights(**shapes), *running, *limits, *unsqueezed[1]], opset=opset, ir_version=ir_version,
        inputs=[tensor("x", "batch", 1, 6, 6)], outputs=[tensor("y", "batch", CLASSES)],
    )  # fmt: skip


@pytest.fixture
def features(tmp_path):
    """Return a function: model -> metadata and features of five random inputs."""

    def run(model, **options):
        onnx.save(model, tmp_path / "c.onnx")
        metadata = prepare(tmp_path / "c.onnx", tmp_path / "s.onnx", overwrite=True, **options)
        extents = [extent or 4 for extent in metadata.input_shape[1:]]
        x = np.random.default_rng(3).standard_normal((5, *extents)).astype(np.float32)
        with Scorer.load(tmp_path / "s.onnx", threads=1) as scorer:
            return metadata, scorer.score(x).features

    return run


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    onnx.save(convolutional(OPSET), folder / "c.onnx")
    prepare(folder / "c.onnx", folder / "s.onnx")
    x = np.random.default_rng(3).standard_normal((5, 1, 6, 6)).astype(np.float32)
    return Scorer.load(folder / "s.onnx").score(x).features


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_means_the_same(opset, features, reference):
    metadata, actual = features(convolutional(opset))
    assert [layer.name for layer in metadata.layers] == ["c", "n", "d"]
    np.testing.assert_allclose(actual, reference, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("version", [4, 6, 10, 11, 12, 13])
def test_every_ir_version_means_the_same(version, features, reference):
    np.testing.assert_allclose(features(convolutional(11, version))[1], reference, rtol=1e-5, atol=1e-8)


def test_a_newer_opset_than_any_is_refused(features):
    with pytest.raises(ModelError, match=rf"opset|{NEWEST + 40}"):
        features(convolutional(NEWEST + 40))


@pytest.mark.skipif(not onnx.defs.has("BitCast", NEWEST, ""), reason="this onnx has no BitCast yet")
def test_what_a_newer_opset_alone_has_is_refused_with_its_node(features):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "dense"),
        helper.make_node("BitCast", ["h"], ["y"], "new", to=TensorProto.FLOAT),
    ]
    row, scores = [tensor("x", "batch", 4)], [tensor("y", "batch", CLASSES)]
    with pytest.raises(ModelError, match=r"BitCast"):
        features(model_of(nodes, weights(w=(4, CLASSES)), opset=NEWEST, inputs=row, outputs=scores))


def subgraph(name, nodes, inputs, outputs):
    return helper.make_graph(nodes, name, inputs, outputs)


def test_control_flow_is_refused_with_its_node(features):
    row = [tensor("x", "batch", 4)]
    branch = [
        subgraph(op, [helper.make_node(op, ["h"], [op])], [], [tensor(op, "batch", CLASSES)]) for op in ("Relu", "Tanh")
    ]
    body = subgraph(
        "body", [helper.make_node("Identity", ["go"], ["still"]), helper.make_node("Relu", ["state"], ["next"])],
        [tensor("i", kind=TensorProto.INT64), tensor("go", kind=TensorProto.BOOL), tensor("state", "batch", CLASSES)],
        [tensor("still", kind=TensorProto.BOOL), tensor("next", "batch", CLASSES)],
    )  # fmt: skip
    step = subgraph("step", [helper.make_node("Add", ["s", "e"], ["t"]), helper.make_node("Identity", ["t"], ["u"])],
                    [tensor("s", CLASSES), tensor("e", CLASSES)], [tensor("t", CLASSES), tensor("u", CLASSES)])  # fmt: skip
    flag, count = numpy_helper.from_array(np.array(True), "flag"), numpy_helper.from_array(np.array(2), "count")
    start = numpy_helper.from_array(np.zeros(CLASSES, np.float32), "start")
    cases = {
        "If": helper.make_node("If", ["positive"], ["y"], "choice", then_branch=branch[0], else_branch=branch[1]),
        "Loop": helper.make_node("Loop", ["count", "flag", "h"], ["y"], "choice", body=body),
        "Scan": helper.make_node("Scan", ["start", "h"], ["last", "y"], "choice", body=step, num_scan_inputs=1),
    }
    for op_type, node in cases.items():
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["h"], "dense"),
            helper.make_node("ReduceMax", ["h"], ["largest"], "largest", keepdims=0),
            helper.make_node("Cast", ["largest"], ["positive"], "positive", to=TensorProto.BOOL),
            node,
        ]
        model = model_of(
            nodes, [*weights(w=(4, CLASSES)), flag, count, start], inputs=row, outputs=[tensor("y", "batch", CLASSES)]
        )
        with pytest.raises(UnsupportedOpError, match=rf"'choice' \({op_type}\) has a subgraph.*control flow"):
            features(model)


def squeezing(batch_decides=False):
    """If the axis has one position squeeze it, as torch writes it; a dense layer and another choice within the branch."""
    axes = [numpy_helper.from_array(np.array(value), name) for name, value in (("zero", 0), ("one", 1), ("ax", [1]))]
    inner = [
        subgraph(op, [helper.make_node(op, ["t"], ["v"])], [], [tensor("v", "batch", CLASSES)])
        for op in ("Tanh", "Relu")
    ]
    then = subgraph("then", [
        helper.make_node("Squeeze", ["u", "ax"], ["s"], "squeeze"), helper.make_node("MatMul", ["s", "fc.weight"], ["t"], "fc"),
        helper.make_node("If", ["yes"], ["v"], "inner", then_branch=inner[0], else_branch=inner[1]),
    ], [], [tensor("v", "batch", CLASSES)])  # fmt: skip
    then.initializer.extend([*weights(fc_weight=(4, CLASSES)), numpy_helper.from_array(np.array(True), "yes")])
    otherwise = subgraph("else", [helper.make_node("Identity", ["u"], ["v"])], [], [tensor("v", None, None, None)])
    nodes = [
        helper.make_node("Unsqueeze", ["x", "ax"], ["u"], "unsqueeze"),
        helper.make_node("Shape", ["u"], ["shape"], "shape"),
        helper.make_node("Gather", ["shape", "zero" if batch_decides else "one"], ["size"], "size"),
        helper.make_node("Equal", ["size", "one"], ["single"], "single"),
        helper.make_node("If", ["single"], ["y"], "choice", then_branch=then, else_branch=otherwise),
    ]
    return model_of(nodes, axes, inputs=[tensor("x", "batch", 4)], outputs=[tensor("y", "batch", CLASSES)])


def test_a_branch_that_the_shapes_decide_is_taken(features):
    metadata, actual = features(squeezing())
    assert [layer.name for layer in metadata.layers] == ["fc"]
    plain = [
        helper.make_node("MatMul", ["x", "fc.weight"], ["h"], "fc"),
        helper.make_node("Tanh", ["h"], ["y"], "tanh"),
    ]
    ends = {"inputs": [tensor("x", "batch", 4)], "outputs": [tensor("y", "batch", CLASSES)]}
    np.testing.assert_array_equal(actual, features(model_of(plain, weights(fc_weight=(4, CLASSES)), **ends))[1])


def test_a_branch_that_the_batch_size_decides_is_refused(features):
    with pytest.raises(UnsupportedOpError, match=r"'choice' \(If\) has a subgraph"):
        features(squeezing(batch_decides=True))


def dense_nodes():
    return [
        helper.make_node("MatMul", ["x", "a.weight"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "b.weight"], ["z"], "second"),
    ]


def dense_model(extra, outputs, **options):
    inputs = [tensor("x", "batch", 4)]
    return model_of(
        [*dense_nodes(), *extra],
        weights(a_weight=(4, 5), b_weight=(5, CLASSES)),
        inputs=inputs,
        outputs=outputs,
        **options,
    )


def test_functions_of_the_model_itself_are_inlined(features):
    doubled = helper.make_function(
        "own", "Twice", ["u"], ["v"], [helper.make_node("Add", ["u", "u"], ["v"])], [helper.make_opsetid("", 18)]
    )
    twice = [helper.make_node("Twice", ["z"], ["y"], "twice", domain="own")]
    plain = [helper.make_node("Add", ["z", "z"], ["y"], "twice")]
    outputs = [tensor("y", "batch", CLASSES)]
    actual = features(dense_model(twice, outputs, domains=["own"], functions=[doubled]))[1]
    np.testing.assert_allclose(actual, features(dense_model(plain, outputs))[1], rtol=1e-6)


def labelled(*outputs):
    """As converters of classical models end: the best class by name, and a list of maps from label to probability."""
    extra = [
        helper.make_node("Softmax", ["z"], ["p"], "softmax", axis=1),
        helper.make_node("ArgMax", ["p"], ["best"], "best", axis=1, keepdims=0),
        helper.make_node("ArrayFeatureExtractor", ["names", "best"], ["label"], "names", domain="ai.onnx.ml"),
        helper.make_node("ZipMap", ["p"], ["maps"], "zip", domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]),
    ]
    maps = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    shown = {
        "label": tensor("label", 1, "batch", kind=TensorProto.INT64),
        "maps": helper.make_value_info("maps", helper.make_sequence_type_proto(maps)),
        "p": tensor("p", "batch", CLASSES),
    }
    model = dense_model(extra, [shown[name] for name in outputs], domains=["ai.onnx.ml"])
    model.graph.initializer.append(numpy_helper.from_array(np.array([10, 20, 30]), "names"))
    return model


def test_labels_by_name_are_left_out_beside_probabilities(features):
    np.testing.assert_allclose(features(labelled("label", "p"))[1], features(labelled("p"))[1], rtol=1e-6)


def test_a_final_zipmap_is_refused_with_the_option_that_helps(features):
    with pytest.raises(ModelError, match=r"'maps' is a list or a map.*'zipmap': False"):
        features(labelled("label", "maps"))


def test_a_custom_domain_on_the_way_to_every_output_is_refused(features):
    extra = [helper.make_node("Scaler", ["z"], ["y"], "scaler", domain="ai.onnx.ml", scale=[1.0], offset=[0.0])]
    with pytest.raises(UnsupportedOpError, match=r"'scaler' is ai\.onnx\.ml\.Scaler.*standard operators only"):
        features(dense_model(extra, [tensor("y", "batch", CLASSES)], domains=["ai.onnx.ml"]))


def test_what_depends_on_no_input_is_computed_once():
    extra = [
        helper.make_node("Shape", ["b.weight"], ["s"]),
        helper.make_node("Slice", ["s", "one", "two"], ["k"]),
        helper.make_node("ConstantOfShape", ["k"], ["zeros"]),
        helper.make_node("Add", ["z", "zeros"], ["y"]),
    ]
    model = dense_model(extra, [tensor("y", "batch", CLASSES)])
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array([value]), name) for name, value in (("one", 1), ("two", 2))
    )
    normal = normalize(model)
    assert [node.op_type for node in normal.graph] == ["MatMul", "Relu", "MatMul", "Add"]


@pytest.mark.parametrize(
    ("alpha", "pool", "head", "expected"),
    [
        (0.1, "kernel_shape=[2,2],strides=[2,2]", "y = Flatten(p)", ["MaxPool", "LeakyRelu", "Flatten"]),
        (0.0, "kernel_shape=[2,2],strides=[2,2]", "y = Flatten(p)", ["LeakyRelu", "MaxPool", "Flatten"]),
        (0.1, "kernel_shape=[2,2]", "y = Flatten(p)", ["LeakyRelu", "MaxPool", "Flatten"]),  # no smaller
        (
            0.1, "kernel_shape=[2,2],strides=[2,2]", "f = Flatten(p)\ng = Flatten(s)\ny = Concat<axis=1>(f, g)",
            ["LeakyRelu", "MaxPool", "Flatten", "Flatten", "Concat"],
        ),
    ],
)  # fmt: skip
def test_a_leaky_relu_is_taken_behind_the_pool_that_alone_reads_it(alpha, pool, head, expected):
    text = f"""<ir_version: 8, opset_import: ["" : 18]>
    g (float[batch, 2, 4, 4] x) => (float[batch, n] y) {{
        s = LeakyRelu<alpha={alpha:.1f}>(x)
        p = MaxPool<{pool}>(s)
        {head}
    }}"""
    normal = normalize(onnx.parser.parse_model(text))
    assert [node.op_type for node in normal.graph] == expected
    assert normal.graph.outputs[0].name == "y"


def test_normalised_graphs_speak_one_dialect():
    """Whatever opset came in, what goes out is of opset 18, checked, without Dropout, Identity or a batch of its own."""
    for opset in (7, 13, NEWEST):
        normal = normalize(convolutional(opset))
        assert normal.graph.opset_imports[""] == OPSET
        onnx.checker.check_model(ir.to_proto(normal), full_check=True)
        assert not {node.op_type for node in normal.graph} & {"BatchNormalization", "Dropout", "Identity"}
        assert str(normal.graph.inputs[0].shape[0]) == "batch"


def test_rules_name_operators_that_exist():
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert set(RULES) | set(SHAPED_RULES) <= known
