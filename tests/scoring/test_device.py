"""Scoring on a CUDA device against the CPU: every family of the zoo, on the graph and on kernels."""

import gradscore_kernels as gk
import numpy as np
import pytest

from gradscore import Scorer, fuse, prepare
from gradscore.runtime.session import CPU_PROVIDER, load_onnxruntime
from tests.fusing.test_fusing import assert_features, batch_of, run, verdict_for
from tests.support import zoo

PROVIDER = "CUDAExecutionProvider"
pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def device():
    if PROVIDER not in load_onnxruntime().get_available_providers() or "cuda" not in gk.available_backends():
        pytest.skip("no CUDA device, or onnxruntime-gpu or numba-cuda is not installed")


@pytest.mark.parametrize("name", zoo.ZOO)
def test_features_equal_the_cpus(name, tmp_path):
    module, example = zoo.build(name)
    zoo.export(module, example, tmp_path / "c.onnx", zoo.EXPORTERS.get(name, "dynamo"))
    prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")
    rows = batch_of(example, 7)
    expected = Scorer.load(tmp_path / "s.onnx").score(rows)
    for backend in ("graph", "cuda"):
        with Scorer.load(tmp_path / "s.onnx", providers=[PROVIDER], backend=backend) as scorer:
            found = scorer.score(rows)
        np.testing.assert_array_equal(found.label, expected.label)
        assert_features(found.features, expected)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_a_self_scoring_model_gives_what_it_gives_on_the_cpu(name, tmp_path):
    module, example = zoo.build(name)
    zoo.export(module, example, tmp_path / "c.onnx", zoo.EXPORTERS.get(name, "dynamo"))
    prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")
    fuse(tmp_path / "s.onnx", tmp_path / "f.onnx", features=["*"])
    rows = batch_of(example, 7)
    found = run(tmp_path / "f.onnx", rows, providers=[PROVIDER])
    expected = Scorer.load(tmp_path / "s.onnx").score(rows)
    np.testing.assert_array_equal(found["label"], expected.label)
    assert_features(found["features"], expected)


def test_many_batches_on_the_device_give_what_each_gives_alone(tmp_path):
    module, example = zoo.build("resnet")
    zoo.export(module, example, tmp_path / "c.onnx")
    prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")
    rows = batch_of(example, 300)
    for backend in ("graph", "cuda"):
        with Scorer.load(tmp_path / "s.onnx", providers=[PROVIDER], backend=backend) as scorer:
            whole = scorer.score(rows)
            for start in (0, 128, 297):
                part = scorer.score(rows[start : start + 3])
                part_of_whole = whole.features[start : start + 3]
                np.testing.assert_allclose(part.features[:, :8], part_of_whole[:, :8], rtol=1e-3, atol=1e-4)


def test_a_self_scoring_model_runs_on_the_device(tmp_path):
    module, example = zoo.build("resnet")
    zoo.export(module, example, tmp_path / "c.onnx")
    prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")
    rows = batch_of(example, 64)
    scorer = Scorer.load(tmp_path / "s.onnx")
    verdict_for(scorer, rows).save(tmp_path / "v.onnx")
    fuse(tmp_path / "s.onnx", tmp_path / "f.onnx", verdict=tmp_path / "v.onnx")
    found, expected = (
        run(tmp_path / "f.onnx", rows, providers=[name])["p_correct"] for name in (PROVIDER, CPU_PROVIDER)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
