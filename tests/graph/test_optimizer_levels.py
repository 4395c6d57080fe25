"""Every scoring model gives the same signals with the runtime's optimiser off and at its highest level, at any batch size."""

import numpy as np
import onnxruntime
import pytest
import torch

from gradscore import prepare
from tests.support import zoo

TOLERANCE = 1e-4  # of the largest absolute value of a signal
ROUNDING = 1e-8  # back-propagation starts at one: a signal smaller than this is what float32 leaves of sums that cancel
LEVELS = {
    "off": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "highest": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
SMALL = ("attention", "cnn_1d", "shared", "unet")
BATCHES = (1, 7, 64)


def session(path, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def inputs(example, count):
    """`count` rows: the example's own, then others of its kind."""
    torch.manual_seed(count)
    rows = example.repeat(-(-count // len(example)), *[1] * (example.ndim - 1))[:count]
    if not example.is_floating_point():
        return rows[:, torch.randperm(rows.shape[1])].numpy()
    return (rows + 0.3 * torch.randn_like(rows)).numpy()


def agree(name, actual, expected):
    assert actual.shape == expected.shape, name
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expected, err_msg=name)
        return
    tolerance = max(TOLERANCE * np.abs(expected).max(initial=0), ROUNDING)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=name)


def check_member(name, folder):
    module, example = zoo.build(name)
    zoo.export(module, example, folder / "c.onnx", zoo.EXPORTERS.get(name, "dynamo"))
    prepare(folder / "c.onnx", folder / "s.onnx")
    plain, optimised = (session(folder / "s.onnx", level) for level in LEVELS)
    names = [output.name for output in plain.get_outputs()]
    for count in BATCHES:  # one session for all sizes, as a service has it
        rows = {plain.get_inputs()[0].name: inputs(example, count)}
        results = [run.run(names, rows) for run in (plain, optimised)]
        for output, expected, actual in zip(names, *results, strict=True):
            assert len(expected) == count, f"{name}: {output} has no row for each sample"
            assert np.isfinite(expected.astype(np.float64)).all(), output
            agree(f"{name} at batch {count}: {output}", actual, expected)
        single = plain.run(names, {key: value[-1:] for key, value in rows.items()})
        for output, expected, actual in zip(names, results[0], single, strict=True):
            agree(f"{name}: the last of {count} alone: {output}", actual, expected[-1:])


@pytest.mark.parametrize("name", SMALL)
def test_optimiser_off_and_highest_agree(name, tmp_path):
    check_member(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(zoo.ZOO) - set(SMALL)))
def test_optimiser_off_and_highest_agree_for_the_rest(name, tmp_path):
    check_member(name, tmp_path)
