"""Statistics in the graph against the kernels' oracle: every kernel, every geometry, and whole networks."""

import gradscore_kernels as gk
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradscore import InputError
from gradscore.graph.statistics.append import append_statistics
from gradscore.graph.statistics.gradients import GradientRule
from gradscore.graph.statistics.reduction_rules import GRADIENT_RULES
from gradscore.model.layer_table import Layer, Parameter, Reduction
from gradscore.model.metadata import LAYER_STATISTICS
from gradscore.runtime.session import open_session
from tests.support.kernel_cases import CASES, small_cases

RTOL = 1e-4
ARRAYS = {
    "outer": ("activation", "delta"),
    "conv": ("activation", "delta"),
    "unpooled_conv": ("activation", "pooled", "delta"),
    "sequence": ("activation", "delta"),
    "embedding": ("activation", "delta"),
}


def geometry_of(geometry):
    return {
        name: list(getattr(geometry, name)) for name in ("kernel", "strides", "dilations", "pads")
    } | {"groups": getattr(geometry, "groups", 1)}  # fmt: skip


def reduction_of(kernel, extra, prefix=""):
    attributes = None
    if kernel == "conv":
        attributes = geometry_of(extra["geometry"])
    if kernel == "unpooled_conv":
        attributes = {name: geometry_of(extra[name]) for name in ("geometry", "pool")}
    if kernel == "embedding":
        attributes = dict(extra)
    if kernel in ("outer", "sequence"):
        attributes = {"outputs_first": True}
    fields = {name: f"{prefix}{name}" for name in ARRAYS.get(kernel, ("delta",))}
    return Reduction(kernel, attributes=attributes, **fields)


def parameter_of(kernel, arrays, extra):
    """The shape of the weight whose gradient a kernel reduces."""
    last = arrays[-1].shape
    if kernel in ("conv", "unpooled_conv"):
        geometry, channels = extra["geometry"], arrays[0].shape[1]
        return Parameter("w", (arrays[1].shape[1], channels // geometry.groups, *geometry.kernel), "")
    shapes = {
        "direct": last[1:], "embedding": (extra.get("vocabulary"), last[-1]), "position_sum": last[1:2],
        "sequence_sum": last[-1:],
    }  # fmt: skip
    return Parameter("w", shapes[kernel] if kernel in shapes else (last[-1], arrays[0].shape[-1]), "")


def session_of(layers, arrays, *, optimize=True, features=None, **options):
    """A graph of nothing but statistics: its inputs are what the reductions read."""
    names = [f"{layer.name}.{statistic}" for layer in layers for statistic in LAYER_STATISTICS]
    values = [
        ir.Value(name=name, shape=ir.Shape(["batch", *array.shape[1:]]), type=ir.TensorType(ir.DataType.from_numpy(array.dtype)))
        for name, array in arrays.items()
    ]  # fmt: skip
    graph = ir.Graph(values, [], nodes=[], opset_imports={"": 18}, name="statistics")
    output = append_statistics(graph, layers, features or names, **options)
    output.type, output.shape = ir.TensorType(ir.DataType.DOUBLE), ir.Shape(["batch", len(features or names)])
    graph.outputs.append(output)
    proto = ir.to_proto(ir.Model(graph, ir_version=10))
    onnx.checker.check_model(proto, full_check=True)
    return open_session(proto.SerializeToString(), threads=1, optimize=optimize)


def run(kernel, arrays, extra, *, optimize=True, **options):
    reduction = reduction_of(kernel, extra)
    named = {f"{name}": array for name, array in zip(ARRAYS.get(kernel, ("delta",)), arrays, strict=True)}
    layers = (Layer("layer", "", (parameter_of(kernel, arrays, extra),), (reduction,)),)
    return session_of(layers, named, optimize=optimize, **options).run(None, named)[0]


def assert_statistics(actual, expected, count):
    """Compare [B, 8] relative to the scale of each statistic: extrema to the root mean square, the mean to the spread."""
    rms = expected[:, 1] / np.sqrt(count)
    largest = np.maximum(np.abs(expected[:, 2]), np.abs(expected[:, 3]))
    scale = np.stack(
        [expected[:, 0], expected[:, 1], largest, largest, rms, rms, *np.maximum(1, np.abs(expected[:, 6:].T))], 1
    )
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    error = np.abs(actual - expected)
    assert (error <= RTOL * scale).all(), (error / np.where(scale, scale, 1)).max(0)


def test_every_kernel_has_a_rule():
    assert set(GRADIENT_RULES) == set(gk.KERNELS)


@pytest.mark.parametrize("optimize", [True, False], ids=["optimised", "plain"])
@pytest.mark.parametrize("name", CASES)
def test_statistics_equal_the_kernels(name, optimize):
    case = CASES[name]
    arrays, kernel = case.arrays(), case.kernel.removesuffix("_moments")
    accumulators = case.run(arrays, backend="reference")
    expected = gk.statistics(accumulators)
    assert_statistics(run(kernel, arrays, case.extra, optimize=optimize), expected, accumulators[:, 0])


def summed_over_positions():
    return [name for name, case in CASES.items() if case.kernel.startswith(("conv", "unpooled_conv", "sequence_m"))]


@pytest.mark.parametrize("optimize", [True, False], ids=["optimised", "plain"])
@pytest.mark.parametrize("name", summed_over_positions())
def test_one_sample_after_the_other_gives_the_same(name, optimize, monkeypatch):
    """Gradients with intermediate values too large for a batch, and gradients too large themselves."""
    case = CASES[name]
    arrays, kernel = case.arrays(), case.kernel.removesuffix("_moments")
    accumulators = case.run(arrays, backend="reference")
    expected = gk.statistics(accumulators)
    assert_statistics(run(kernel, arrays, case.extra, optimize=optimize, at_once=0), expected, accumulators[:, 0])
    monkeypatch.setattr(type(GRADIENT_RULES[kernel]), "making", GradientRule.making)
    assert_statistics(run(kernel, arrays, case.extra, optimize=optimize, at_once=0), expected, accumulators[:, 0])


@pytest.mark.parametrize("bad", [0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [name for name in small_cases(5000) if name in summed_over_positions()])
def test_one_sample_after_the_other_keeps_rows_apart(name, bad):
    case = CASES[name]
    arrays, kernel = case.arrays(), case.kernel.removesuffix("_moments")
    clean = run(kernel, arrays, case.extra, at_once=0)
    arrays[-1].reshape(len(arrays[-1]), -1)[1, 0 if bad else slice(None)] = bad
    actual = run(kernel, arrays, case.extra, at_once=0)
    others = np.arange(len(clean)) != 1
    np.testing.assert_array_equal(actual[others], clean[others])
    np.testing.assert_array_equal(actual[1], np.full(8, np.nan) if bad else np.zeros(8))


@pytest.mark.parametrize("scale", [1e-25, 1e-10, 1e10])
@pytest.mark.parametrize("name", ["conv-small", "outer", "sequence-small", "embedding", "direct"])
def test_gradients_of_any_size_keep_their_shape(name, scale):
    """Fourth powers of 1e-25 are far below single precision's range."""
    case = CASES[name]
    arrays = case.arrays()
    arrays[-1] = (arrays[-1] * np.float32(scale)).astype(np.float32)
    accumulators = case.run(arrays, backend="reference")
    actual = run(case.kernel.removesuffix("_moments"), arrays, case.extra)
    assert_statistics(actual, gk.statistics(accumulators), accumulators[:, 0])


@pytest.mark.parametrize("name", small_cases(5000))
def test_a_gradient_of_zeros_has_statistics_of_zero(name):
    case = CASES[name]
    arrays = case.arrays()
    arrays[-1][1] = 0
    actual = run(case.kernel.removesuffix("_moments"), arrays, case.extra)
    np.testing.assert_array_equal(actual[1], np.zeros(8))
    assert (actual[0] != 0).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", small_cases(5000))
def test_nan_and_infinity_stay_in_their_row(name, bad):
    case = CASES[name]
    arrays, kernel = case.arrays(), case.kernel.removesuffix("_moments")
    clean = run(kernel, arrays, case.extra)
    arrays[-1].reshape(len(arrays[-1]), -1)[1, 0] = bad
    actual = run(kernel, arrays, case.extra)
    others = np.arange(len(clean)) != 1
    np.testing.assert_array_equal(actual[others], clean[others])
    assert np.isnan(actual[1]).all()


@pytest.mark.parametrize("value", [0.1, -3e-7, 1e20])
def test_a_constant_gradient_has_no_skewness(value):
    statistics = run("direct", [np.full((2, 33), value, np.float32)], {})[0]
    assert statistics[5] <= 1e-6 * abs(value)
    np.testing.assert_array_equal(statistics[6:], [0, 0])


def several_layers(rng, sizes, batch):
    """Layers of one to three direct gradients each."""
    arrays, layers = {}, []
    for index, own in enumerate(sizes):
        names = [f"g{index}_{part}" for part in range(len(own))]
        arrays |= {
            name: (rng.gamma(2, size=(batch, count)) * 10.0 ** rng.integers(-6, 3)).astype(np.float32)
            for name, count in zip(names, own, strict=True)
        }
        parameters = tuple(Parameter(name, (count,), "") for name, count in zip(names, own, strict=True))
        layers.append(Layer(f"layer{index}", "", parameters, tuple(Reduction("direct", name) for name in names)))
    return tuple(layers), arrays


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=3), min_size=1, max_size=5),
    batch=st.integers(1, 4),
    seed=st.integers(0, 2**16),
)
def test_layers_of_any_sizes_merge_as_the_kernels_do(sizes, batch, seed):
    layers, arrays = several_layers(np.random.default_rng(seed), sizes, batch)
    names = [
        f"{layer}.{statistic}" for layer in (*(each.name for each in layers), "all") for statistic in LAYER_STATISTICS
    ]
    found = session_of(layers, arrays, features=names).run(None, arrays)[0].reshape(batch, -1, 8)
    parts = [
        [gk.direct_moments(arrays[item.delta], backend="reference") for item in layer.reductions] for layer in layers
    ]
    merged = [gk.merge(own) for own in parts]
    for index, accumulators in enumerate([*merged, gk.merge(merged)]):
        assert_statistics(found[:, index], gk.statistics(accumulators), accumulators[:, 0])


def test_features_come_in_the_order_asked_for_and_cost_only_what_they_need(rng):
    layers, arrays = several_layers(rng, [[5000], [20, 7]], 3)
    names = ["layer1.max", "all.l1", "layer1.kurtosis"]
    everything = dict(
        zip([f"{layer.name}.{key}" for layer in layers for key in LAYER_STATISTICS], range(16), strict=True)
    )
    whole = session_of(layers, arrays).run(None, arrays)[0]
    some = session_of(layers, arrays, features=names).run(None, arrays)[0]
    np.testing.assert_array_equal(some[:, 0], whole[:, everything["layer1.max"]])
    np.testing.assert_array_equal(some[:, 2], whole[:, everything["layer1.kurtosis"]])
    np.testing.assert_allclose(
        some[:, 1], whole[:, everything["layer0.l1"]] + whole[:, everything["layer1.l1"]], rtol=1e-6
    )


def test_a_missing_layer_is_refused(rng):
    layers, arrays = several_layers(rng, [[5]], 1)
    with pytest.raises(InputError, match=r"no feature 'fc\.l1'"):
        session_of(layers, arrays, features=["fc.l1"])


def dense_layers(rng, sizes, batch, *, biased=True, scale=1.0, mean=0.0):
    """Dense layers with these inputs and outputs; a bias is part of the product with its δ."""
    arrays, layers = {}, []
    for index, (inputs, outputs) in enumerate(sizes):
        arrays[f"a{index}"] = rng.gamma(2, size=(batch, inputs)).astype(np.float32)
        arrays[f"d{index}"] = (scale * (mean + rng.standard_normal((batch, outputs)))).astype(np.float32)
        weight = Reduction("outer", f"d{index}", activation=f"a{index}", attributes={"outputs_first": True})
        parameters = (Parameter("w", (outputs, inputs), ""), Parameter("b", (outputs,), ""))
        reductions = (weight, Reduction("direct", f"d{index}"))
        kept = 2 if biased else 1
        layers.append(Layer(f"layer{index}", "", parameters[:kept], reductions[:kept]))
    return tuple(layers), arrays


def dense_accumulators(layers, arrays):
    """One merged accumulator a layer."""
    found = []
    for index, layer in enumerate(layers):
        delta = arrays[f"d{index}"]
        parts = [gk.outer_moments(arrays[f"a{index}"], delta, backend="reference")]
        parts += [gk.direct_moments(delta, backend="reference")] * (len(layer.reductions) - 1)
        found.append(gk.merge(parts))
    return found


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("scale", "mean"), [(1, 0), (1e-25, 0), (1e10, 1), (1e-3, 30)])
@pytest.mark.parametrize("sizes", [[(60, 20)], [(144, 10), (144, 10), (33, 16), (12, 3)], [(455, 9)], [(4, 129)]])
def test_small_dense_layers_equal_the_kernels(rng, sizes, scale, mean, biased):
    layers, arrays = dense_layers(rng, sizes, 4, biased=biased, scale=scale, mean=mean)
    arrays["d0"][2] = 0
    found = session_of(layers, arrays).run(None, arrays)[0].reshape(4, len(layers), 8)
    for index, accumulators in enumerate(dense_accumulators(layers, arrays)):
        assert_statistics(found[:, index], gk.statistics(accumulators), accumulators[:, 0])
    np.testing.assert_array_equal(found[2, 0], np.zeros(8))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["a0", "d0"])
def test_a_small_dense_layer_keeps_rows_apart(rng, bad, name):
    layers, arrays = dense_layers(rng, [(60, 20)], 3)
    clean = session_of(layers, arrays).run(None, arrays)[0]
    arrays[name][1, 3] = bad
    actual = session_of(layers, arrays).run(None, arrays)[0]
    np.testing.assert_array_equal(actual[[0, 2]], clean[[0, 2]])
    assert np.isnan(actual[1]).all()


@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0])
@pytest.mark.parametrize("statistic", LAYER_STATISTICS)
def test_each_statistic_alone_is_that_among_all(rng, statistic, shift):
    """Alone, a statistic may be computed in units of another scale than with the others."""
    layers, arrays = several_layers(rng, [[5000], [700], [20, 7]], 3)
    arrays = {name: (array + shift * array.std()).astype(np.float32) for name, array in arrays.items()}
    dense, more = dense_layers(rng, [(60, 20), (144, 64)], 3)
    names = {f"layer{index}": f"dense{index}" for index in range(len(dense))}
    layers += tuple(Layer(names[layer.name], "", layer.parameters, layer.reductions) for layer in dense)
    arrays |= more
    features = [f"{layer.name}.{statistic}" for layer in layers] + [f"all.{statistic}"]
    every = [f"{name}.{other}" for name in (*(layer.name for layer in layers), "all") for other in LAYER_STATISTICS]
    whole = session_of(layers, arrays, features=every).run(None, arrays)[0]
    columns = [every.index(feature) for feature in features]
    alone = session_of(layers, arrays, features=features).run(None, arrays)[0]
    np.testing.assert_allclose(alone, whole[:, columns], rtol=1e-5)
    for feature, column in zip(features, columns, strict=True):
        single = session_of(layers, arrays, features=[feature]).run(None, arrays)[0]
        np.testing.assert_allclose(single[:, 0], whole[:, column], rtol=1e-5)


@pytest.mark.parametrize("outlier", [-1e6, 1e6])
@pytest.mark.parametrize("extremum", ["min", "max"])
def test_one_number_far_from_all_others_leaves_single_precision_room(rng, outlier, extremum):
    """If only the other extremum is requested, the scale comes from the mean."""
    values = rng.standard_normal((3, 5000)).astype(np.float32)
    values[1, 17] = outlier
    layer = Layer("layer", "", (Parameter("w", (5000,), ""),), (Reduction("direct", "g"),))
    features = [f"layer.{statistic}" for statistic in (extremum, "l2", "kurtosis")]
    found = session_of([layer], {"g": values}, features=features).run(None, {"g": values})[0]
    expected = gk.statistics(gk.direct_moments(values, backend="reference"))
    columns = [LAYER_STATISTICS.index(statistic) for statistic in (extremum, "l2", "kurtosis")]
    np.testing.assert_allclose(found, expected[:, columns], rtol=RTOL, atol=RTOL)
