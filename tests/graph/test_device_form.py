"""Statistics arranged for a GPU: every number as before, in operators that its kernels are fast at."""

from collections import Counter
from math import prod

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradscore import InputError, fuse, prepare
from gradscore.graph.assemble.device_form import arrange_for_device
from gradscore.graph.assemble.unit_form import unit_form
from gradscore.graph.nodes.emitter import STATISTICS, Emitter
from gradscore.graph.statistics.unfolding import Window
from gradscore.runtime.session import open_session
from tests.fusing.test_fusing import batch_of
from tests.support import zoo

FAMILIES = ("resnet", "convnext", "levit", "bert", "lstm", "cnn_1d", "cnn_3d")


def model_of(write, shape):
    """A model whose input "x" [B, *shape] becomes what `write(x, emit)` emits."""
    given = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", *shape]))
    graph = ir.Graph([given], [], nodes=[], opset_imports={"": 18})
    result = write(given, Emitter(graph, STATISTICS))
    result.name, result.type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph.outputs.append(result)
    return ir.Model(graph, ir_version=10)


def run(model, inputs):
    session = open_session(ir.to_proto(model).SerializeToString(), threads=1)
    return session.run(None, {session.get_inputs()[0].name: inputs})


def both_ways(write, inputs):
    """What a model gives before and after it is arranged, and how often each operator stands in it then."""
    before, arranged = (model_of(write, inputs.shape[1:]) for _ in range(2))
    arrange_for_device(arranged)
    return run(before, inputs)[0], run(arranged, inputs)[0], Counter(node.op_type for node in arranged.graph)


def extremum(op_type, axes, **attributes):
    return lambda x, emit: emit(op_type, x, emit.integers(*axes), **attributes)


@settings(max_examples=40)
@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=4), kept=st.integers(0, 2), seed=st.integers(0, 99),
    op_type=st.sampled_from(["ReduceMax", "ReduceMin"]),
)  # fmt: skip
def test_extrema_are_the_same_whatever_the_shape(shape, kept, seed, op_type):
    kept = min(kept, len(shape) - 1)
    inputs = np.random.default_rng(seed).standard_normal((3, *shape)).astype(np.float32)
    axes = range(1 + kept, 1 + len(shape))
    before, after, _ = both_ways(extremum(op_type, axes, keepdims=1), inputs)
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(
    ("shape", "pools"), [((1, 2304, 1, 1024), 3), ((2, 36, 1, 1024), 2), ((1, 1, 1, 255), 0), ((1, 1, 1, 257), 0), ((8, 512), 1)]
)  # fmt: skip
def test_many_numbers_go_through_pools(shape, pools, rng):
    inputs = -np.exp(rng.standard_normal((2, *shape))).astype(np.float32)
    for op_type in ("ReduceMax", "ReduceMin"):
        before, after, found = both_ways(extremum(op_type, range(2, 1 + len(shape)), keepdims=1), inputs)
        np.testing.assert_array_equal(after, before)
        assert found["MaxPool"] == pools


def test_other_reductions_stay_as_they_are(rng):
    inputs = rng.standard_normal((2, 16, 32)).astype(np.float32)
    for write in (
        extremum("ReduceMax", [1], keepdims=1), extremum("ReduceMax", [1, 2], keepdims=0),
        extremum("ReduceMax", [0, 1, 2], keepdims=1), extremum("ReduceSum", [1, 2], keepdims=1),
    ):  # fmt: skip
        before, after, found = both_ways(write, inputs)
        np.testing.assert_array_equal(after, before)
        assert sum(found.values()) == 1


windows = st.integers(1, 3).flatmap(
    lambda rank: st.tuples(
        *(st.tuples(*[st.integers(1, most)] * rank) for most in (4, 3, 2)), st.tuples(*[st.integers(-1, 2)] * 2 * rank)
    )
)


@settings(max_examples=60)
@given(window=windows, seed=st.integers(0, 99), beyond=st.integers(0, 6))
def test_unfolded_inputs_are_the_same_whatever_the_window(window, seed, beyond):
    kernel, strides, dilations, pads = window
    seen = Window(kernel, strides, dilations, pads, 1)
    sizes = [step * (extent - 1) + 3 + beyond for extent, step in zip(kernel, dilations, strict=True)]
    inputs = np.random.default_rng(seed).standard_normal((2, 3, *sizes)).astype(np.float32)
    before, after, found = both_ways(seen.unfold, inputs)
    assert before.shape == (6, prod(kernel), *seen.output(sizes))
    np.testing.assert_array_equal(after, before)
    assert not found["Conv"]


def test_a_kernel_of_one_place_unfolds_nothing(rng):
    inputs = rng.standard_normal((2, 3, 9, 8)).astype(np.float32)
    seen = Window((1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 1)
    before, _, found = both_ways(seen.unfold, inputs)
    np.testing.assert_array_equal(before, inputs.reshape(6, 1, 9, 8))
    assert found == {"Reshape": 1}


def test_only_kernels_with_a_single_one_are_unfolded(rng):
    for kernel in (np.ones((1, 1, 3, 3)), 2 * np.eye(9).reshape(9, 1, 3, 3), np.zeros((1, 1, 3, 3))):
        inputs = rng.standard_normal((2, 1, 9, 9)).astype(np.float32)
        before, after, found = both_ways(
            lambda x, emit, kernel=kernel: emit("Conv", x, emit.constant(kernel, np.float32)), inputs
        )
        np.testing.assert_array_equal(after, before)
        assert found == {"Conv": 1}


@pytest.fixture(scope="module")
def scoring_models(tmp_path_factory):
    """Return a function: name of a family -> its scoring model and an example of its input."""

    def make(name):
        folder = tmp_path_factory.mktemp(name)
        module, example = zoo.build(name)
        zoo.export(module, example, folder / "c.onnx", zoo.EXPORTERS.get(name, "dynamo"))
        prepare(folder / "c.onnx", folder / "s.onnx")
        return folder / "s.onnx", example

    return make


@pytest.mark.parametrize("name", FAMILIES)
def test_features_of_a_family_are_the_same(name, scoring_models):
    path, example = scoring_models(name)
    rows = batch_of(example, 7)
    forms = [unit_form(path, on_device=on_device) for on_device in (False, True)]
    usual, arranged = (run(ir.from_proto(onnx.load_from_string(form)), rows) for form in forms)
    for one, other in zip(usual, arranged, strict=True):
        np.testing.assert_array_equal(other, one)


def test_a_self_scoring_model_is_arranged_for_the_provider_it_is_told(scoring_models, tmp_path):
    path, example = scoring_models("resnet")
    fuse(path, tmp_path / "cpu.onnx", features=["*"])
    fuse(path, tmp_path / "cuda.onnx", features=["*"], provider="CUDAExecutionProvider")
    models = [onnx.load(tmp_path / f"{name}.onnx") for name in ("cpu", "cuda")]
    onnx.checker.check_model(models[1], full_check=True)
    pools = [sum(node.op_type == "MaxPool" for node in model.graph.node) for model in models]
    assert pools[1] > pools[0]
    rows = batch_of(example, 5)
    usual, arranged = (run(ir.from_proto(model), rows) for model in models)
    for one, other in zip(usual, arranged, strict=True):
        np.testing.assert_array_equal(other, one)
    with pytest.raises(InputError, match="nothing is known of what suits 'ROCMExecutionProvider'"):
        fuse(path, tmp_path / "rocm.onnx", features=["*"], provider="ROCMExecutionProvider")
    assert not (tmp_path / "rocm.onnx").exists()


def test_not_a_number_stays_in_its_row(scoring_models):
    path, example = scoring_models("resnet")
    usual, arranged = (ir.from_proto(onnx.load_from_string(unit_form(path, on_device=way))) for way in (False, True))
    rows = batch_of(example, 6)
    rows[2] = np.nan
    found = run(arranged, rows)[-1]
    np.testing.assert_array_equal(found, run(usual, rows)[-1])
    assert np.isnan(found).any(1).tolist() == [False, False, True, False, False, False]
