"""The catalogue agrees with the kernels' functions and formulas, the layer tables and the graph."""

from inspect import signature

import gradscore_kernels as gk
import numpy as np
import pytest
import torch

from gradscore.graph.statistics.reduction_rules import GRADIENT_RULES
from gradscore.model.layer_table import Backstep, Reduction
from tests.support.kernel_cases import CASES, every_case

every_spec = pytest.mark.parametrize("spec", [*gk.KERNELS.values(), gk.BACKSTEP], ids=[*gk.KERNELS, "backstep"])


def formula(case, arrays):
    return case.spec.gradient(*arrays, *case.extra.values())


@every_spec
def test_slots_are_those_of_the_layer_table(spec):
    record = Backstep if spec is gk.BACKSTEP else Reduction
    assert set(spec.reads) <= set(record.__dataclass_fields__)


@every_spec
def test_the_formula_takes_what_the_function_takes(spec):
    taken = [name for name in signature(spec.call).parameters if name not in ("backend", "threads")]
    assert list(signature(spec.gradient).parameters) == [name if name != "gradient" else "g" for name in taken]


def test_every_kernel_has_a_form_in_the_graph():
    assert set(GRADIENT_RULES) == set(gk.KERNELS)


def test_a_kernel_without_a_case_is_noticed():
    assert {case.spec.name for case in CASES.values()} == set(gk.KERNELS) - {"whole"}


@every_case
def test_statistics_are_those_of_the_raw_gradient(case):
    arrays = case.arrays(np.float64)
    gradient = formula(case, arrays)
    assert gradient.dtype == np.float64
    np.testing.assert_array_equal(
        gk.direct_moments(gradient, backend="reference"), case.run(arrays, backend="reference")
    )


@every_case
def test_a_nan_makes_its_own_raw_gradient_nan_and_no_other(case):
    arrays = case.arrays()
    clean = formula(case, arrays)
    for place, array in enumerate(arrays):
        if array.dtype.kind != "f":
            continue
        spoilt = array.copy()
        spoilt[1, *(size // 2 for size in array.shape[1:])] = np.nan  # the middle, which every kernel position can meet
        with np.errstate(invalid="ignore"):
            found = formula(case, [*arrays[:place], spoilt, *arrays[place + 1 :]])
        np.testing.assert_array_equal(np.delete(found, 1, axis=0), np.delete(clean, 1, axis=0))
        if place == len(arrays) - 1:
            assert np.isnan(found[1]).any() == _reads_delta(case, array.shape)


def _reads_delta(case, shape):
    """Tell whether the middle of δ changes the gradient; it may meet only padding or skipped rows."""
    *arrays, delta = case.arrays(np.float64)
    changed = delta.copy()
    changed[1, *(size // 2 for size in shape[1:])] += 1e3
    return bool((formula(case, [*arrays, delta]) != formula(case, [*arrays, changed])).any())


def test_a_nan_in_a_window_shows_in_the_raw_gradient():
    case = CASES["unpooled-squares"]
    data, activation, delta = case.arrays()
    activation[2, 3, 0, 0] = np.nan
    found = formula(case, (data, activation, delta))
    assert np.isnan(found[2, 3]).any()
    assert np.isfinite(np.delete(found, 2, axis=0)).all()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.kernel == "conv_moments"])
def test_raw_gradients_of_convolutions_are_those_of_torch(name):
    case = CASES[name]
    data, delta = case.arrays(np.float64)
    geometry = case.extra["geometry"]
    rank = len(geometry.kernel)
    sides = [side for axis in reversed(range(rank)) for side in (geometry.pads[axis], geometry.pads[rank + axis])]
    convolve = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[rank - 1]
    for sample, expected in zip(range(len(data)), formula(case, (data, delta)), strict=True):
        weight = torch.zeros(expected.shape, dtype=torch.float64, requires_grad=True)
        padded = torch.nn.functional.pad(torch.from_numpy(data[sample : sample + 1]), sides)
        out = convolve(padded, weight, None, geometry.strides, 0, geometry.dilations, geometry.groups)
        out.backward(torch.from_numpy(delta[sample : sample + 1]))
        np.testing.assert_allclose(expected, weight.grad.numpy(), rtol=1e-10, atol=1e-10)
