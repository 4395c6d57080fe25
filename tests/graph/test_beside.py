"""Weights in a file beside the scoring model: the same model, never another model's weights, never half written."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gradscore import ModelError, Scorer, prepare
from gradscore.graph.nodes import reading, storing
from gradscore.preparing import preparation as preparing

INPUTS = np.random.default_rng(2).standard_normal((4, 40)).astype(np.float32)


def dense(seed=0, sizes=(40, 600, 90, 3)):
    """Two weights above the size from which they may lie beside the model, and one below."""
    rng = np.random.default_rng(seed)
    nodes, initializers, value = [], [], "x"
    for number, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        weight = rng.standard_normal((fan_in, fan_out), dtype=np.float32) / np.float32(fan_in**0.5)
        initializers.append(numpy_helper.from_array(weight, f"fc{number}.weight"))
        nodes += [helper.make_node("MatMul", [value, f"fc{number}.weight"], [f"m{number}"]),
                  helper.make_node("Tanh", [f"m{number}"], [f"t{number}"])]  # fmt: skip
        value = f"t{number}"
    ends = [("x", sizes[0]), (value, sizes[-1])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in ends]
    graph = helper.make_graph(nodes, "dense", ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def classifier(tmp_path):
    onnx.save(dense(), tmp_path / "c.onnx")
    return tmp_path / "c.onnx"


def beside(model):
    return sorted(model.parent.glob(f"{model.name}.*.data"))


def features(model):
    with Scorer.load(model, threads=1) as scorer:
        return scorer.score(INPUTS).features


def test_weights_beside_the_model_are_the_same_model(classifier, tmp_path):
    inside, outside = tmp_path / "inside.onnx", tmp_path / "outside.onnx"
    prepare(classifier, inside)
    metadata = prepare(classifier, outside, external_data=True)
    [file] = beside(outside)
    assert not beside(inside)
    assert metadata.weights_file == file.name
    assert file.stat().st_size >= 4 * (40 * 600 + 600 * 90)
    assert outside.stat().st_size < inside.stat().st_size // 3
    onnx.checker.check_model(str(outside), full_check=True)
    np.testing.assert_array_equal(features(outside), features(inside))


def test_what_one_file_cannot_hold_goes_beside_unasked(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(storing, "LARGEST_FILE", 200_000)
    prepare(classifier, tmp_path / "s.onnx")
    assert len(beside(tmp_path / "s.onnx")) == 1
    assert np.isfinite(features(tmp_path / "s.onnx")).all()


def test_another_models_weights_are_refused(classifier, tmp_path):
    model = tmp_path / "s.onnx"
    prepare(classifier, model, external_data=True)
    [file] = beside(model)
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"\.data does not hold the weights that s\.onnx was prepared with"):
        Scorer.load(model)
    file.unlink()
    with pytest.raises(ModelError, match=r"onnxruntime cannot load the model: .*data"):
        Scorer.load(model)


def test_overwriting_replaces_both_and_a_failure_neither(classifier, tmp_path, monkeypatch):
    model = tmp_path / "s.onnx"
    prepare(classifier, model, external_data=True)
    before, [old] = features(model), beside(model)

    def fail(*_):
        raise ModelError("no")

    onnx.save(dense(seed=1), classifier)
    with monkeypatch.context() as broken:
        broken.setattr(preparing, "check_file", fail)
        with pytest.raises(ModelError, match="no"):
            prepare(classifier, model, external_data=True, overwrite=True)
    assert beside(model) == [old]
    np.testing.assert_array_equal(features(model), before)
    prepare(classifier, model, external_data=True, overwrite=True)
    [new] = beside(model)
    assert new != old
    assert not np.array_equal(features(model), before)
    prepare(classifier, model, overwrite=True)
    assert not beside(model)
    assert not list(tmp_path.glob("*.part"))


def test_failing_over_a_model_with_the_same_weights_leaves_it_whole(classifier, tmp_path, monkeypatch):
    model = tmp_path / "s.onnx"
    prepare(classifier, model, external_data=True)
    before = features(model)
    monkeypatch.setattr(preparing, "check_file", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(classifier, model, external_data=True, overwrite=True)
    np.testing.assert_array_equal(features(model), before)


def test_the_session_reads_nothing_outside_the_models_folder(classifier, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    prepare(classifier, folder / "s.onnx", external_data=True)
    [file] = beside(folder / "s.onnx")
    secret = tmp_path / "secret.bin"
    secret.write_bytes(file.read_bytes())
    model = onnx.load(folder / "s.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secret.bin"
    (folder / "s.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="onnxruntime cannot load the model"):
        Scorer.load(folder / "s.onnx")


def external(path, *, location="c.data", shift=0):
    onnx.save_model(dense(), path, save_as_external_data=True, location=location, size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "offset":
                entry.value = str(int(entry.value) + shift)
    path.write_bytes(model.SerializeToString())


def test_a_classifier_with_weights_beside_it_is_mapped_not_read(classifier, tmp_path):
    prepare(classifier, tmp_path / "plain.onnx")
    external(tmp_path / "e.onnx")
    read = reading.read_classifier(tmp_path / "e.onnx")
    assert sorted(read.weights) == ["fc0.weight", "fc1.weight"]
    assert read.files == (tmp_path / "e.onnx", tmp_path / "c.data")
    assert read.proto.ByteSize() < 20_000
    metadata = prepare(tmp_path / "e.onnx", tmp_path / "s.onnx")
    np.testing.assert_array_equal(features(tmp_path / "s.onnx"), features(tmp_path / "plain.onnx"))
    with (tmp_path / "c.data").open("r+b") as stream:
        stream.write(b"\x00\x00\x00\x3f")
    changed = prepare(tmp_path / "e.onnx", tmp_path / "s.onnx", overwrite=True)
    assert changed.source_sha256 != metadata.source_sha256, "the source's fingerprint covers its weights"


@pytest.mark.parametrize("shift", [1 << 20, -(1 << 20)])
def test_a_large_weight_beyond_its_file_is_refused(shift, tmp_path):
    external(tmp_path / "c.onnx", shift=shift)
    with pytest.raises(ModelError, match=r"weight 'fc\d\.weight' cannot be read from c\.data: it needs \d+ bytes"):
        prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its peak memory from Linux's /proc")
def test_a_model_beyond_two_gigabytes(tmp_path):
    """560 million weights, 2.2 GB: read from a file beside the classifier, and written to one beside the scoring model."""
    path, sizes = tmp_path / "c.onnx", (256, 16384, 16384, 16384, 3)
    rng = np.random.default_rng(0)
    nodes, value, offset, model = [], "x", 0, None
    initializers = []
    with (tmp_path / "c.data").open("wb") as stream:
        for number, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            proto = TensorProto(name=f"fc{number}.weight", data_type=TensorProto.FLOAT, dims=[fan_in, fan_out])
            proto.data_location = TensorProto.EXTERNAL
            size = 4 * fan_in * fan_out
            for key, entry in (("location", "c.data"), ("offset", offset), ("length", size)):
                proto.external_data.add(key=key, value=str(entry))
            for _ in range(fan_in):
                row = rng.standard_normal(fan_out, dtype=np.float32) / np.float32(fan_in**0.5)
                stream.write(row.tobytes())
            offset += size
            initializers.append(proto)
            nodes.append(helper.make_node("MatMul", [value, proto.name], [f"m{number}"]))
            value = f"m{number}"
            if fan_out > 3:
                nodes.append(helper.make_node("Relu", [value], [f"r{number}"]))
                value = f"r{number}"
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", s]) for n, s in (("x", 256), (value, 3))]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    assert offset > 1 << 31
    program = (
        "import pathlib, sys, numpy, gradscore; gradscore.prepare(sys.argv[1], sys.argv[2]);"
        "status = pathlib.Path('/proc/self/status').read_text();"
        "scores = gradscore.Scorer.load(sys.argv[2]).score(numpy.ones((2, 256), numpy.float32));"
        "assert numpy.isfinite(scores.features).all();"
        "print(1024 * int(status.split('VmHWM:')[1].split()[0]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path, tmp_path / "s.onnx"],
        capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    assert len(beside(tmp_path / "s.onnx")) == 1
    assert int(done.stdout.strip().splitlines()[-1]) < 4 * offset
