"""Model files written tensor by tensor: the same model as a plain save, and a large one in little memory."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from gradscore import ModelError
from gradscore.graph.nodes import storing


def dense(size, dtype=np.float32):
    weights = numpy_helper.from_array((np.arange(size * size) % 1000).reshape(size, size).astype(dtype), "weight")
    values = [helper.make_tensor_value_info(name, weights.data_type, ["n", size]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])], "dense", values[:1], values[1:], [weights]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("size", [3, 300])
def test_a_written_file_is_the_same_model(size, dtype, tmp_path):
    proto = dense(size, dtype)
    model = ir.from_proto(proto)
    model.metadata_props["kind"] = "test"
    storing.write_model(model, tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    read = onnx.load(tmp_path / "model.onnx")
    np.testing.assert_array_equal(
        numpy_helper.to_array(read.graph.initializer[0]), numpy_helper.to_array(proto.graph.initializer[0])
    )
    assert read.graph.initializer[0].data_type == proto.graph.initializer[0].data_type
    assert [node.op_type for node in read.graph.node] == ["MatMul"]
    assert {entry.key: entry.value for entry in read.metadata_props} == {"kind": "test"}
    assert model.graph.initializers["weight"].const_value is not None, "writing must not empty the model"


def test_a_model_beyond_protobufs_limit_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(storing, "LARGEST_FILE", 1000)
    with pytest.raises(ModelError, match="let its weights lie beside it"):
        storing.write_model(ir.from_proto(dense(300)), tmp_path / "model.onnx")


def test_little_endian_on_any_machine():
    swapped = np.array([1.5, -2.0], dtype=">f4")
    assert bytes(storing._little_endian(swapped)) == np.array([1.5, -2.0], dtype="<f4").tobytes()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its peak memory from Linux's /proc")
def test_a_hundred_million_parameters_take_four_times_their_size(tmp_path):
    sizes = (784, 8192, 8192, 4096, 10)
    rng = np.random.default_rng(0)
    nodes, initializers, value = [], [], "x"
    for number, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        weight = rng.standard_normal((fan_in, fan_out), dtype=np.float32) / np.float32(fan_in**0.5)
        initializers.append(numpy_helper.from_array(weight, f"fc{number}.weight"))
        nodes.append(helper.make_node("MatMul", [value, f"fc{number}.weight"], [f"m{number}"]))
        value = f"m{number}"
        if fan_out != 10:
            nodes.append(helper.make_node("Relu", [value], [f"r{number}"]))
            value = f"r{number}"
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 784]),
        helper.make_tensor_value_info(value, TensorProto.FLOAT, ["n", 10]),
    ]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], initializers)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "large.onnx"
    )
    size = (tmp_path / "large.onnx").stat().st_size
    assert size > 400_000_000
    program = (  # not ru_maxrss, which counts what the parent held before it started this process
        "import pathlib, sys, gradscore; gradscore.prepare(sys.argv[1], sys.argv[2]);"
        "status = pathlib.Path('/proc/self/status').read_text();"
        "print(1024 * int(status.split('VmHWM:')[1].split()[0]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "large.onnx", tmp_path / "scoring.onnx"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert int(done.stdout.strip().splitlines()[-1]) < 4 * size
