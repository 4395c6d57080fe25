"""Programs give the bits of their kernels called one by one, for any sequence of batches."""

from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import gradscore_kernels as gk
import numpy as np
import pytest

from tests.support.kernel_cases import every_backend, need

CONV, POOL = gk.ConvGeometry((3, 3)), gk.PoolGeometry((2, 2), (2, 2))
PADDED, WIDE = gk.ConvGeometry((3, 3), pads=(1, 1, 1, 1)), gk.PoolGeometry((3, 3), (2, 2))
VOCABULARY = 6
STEPS = (
    gk.Step(gk.unpooled_conv_input, ("first", "second", "delta", "weight"), (CONV, POOL, 0.1), name="passed"),
    gk.Step(gk.unpooled_conv_moments, ("image", "zeroth", "passed"), (PADDED, WIDE), 0),
    gk.Step(gk.position_sum_moments, ("passed",), (), 0),
    gk.Step(gk.unpooled_conv_moments, ("first", "second", "delta"), (CONV, POOL), 1),
    gk.Step(gk.conv_moments, ("third", "fourth"), (CONV,), 2),
    gk.Step(gk.position_sum_moments, ("fourth",), (), 2),
    gk.Step(gk.sequence_moments, ("words", "heads"), (), 3),
    gk.Step(gk.sequence_sum_moments, ("heads",), (), 3),
    gk.Step(gk.outer_moments, ("flat", "seed"), (), 4),
    gk.Step(gk.direct_moments, ("seed",), (), 4),
    gk.Step(gk.embedding_moments, ("ids", "looked_up"), (VOCABULARY,), 5),
)


def drawn(batch, *, side=10, dtype=np.float32, seed=0):
    """Return arrays for the steps; `side` is the height and width of the first convolution's input."""
    half, rest = side - 2, (side - 2) // 2
    shapes = {
        "first": (6, side, side), "second": (5, half, half), "delta": (5, rest, rest),
        "image": (2, 2 * side + 1, 2 * side + 1), "zeroth": (6, 2 * side + 1, 2 * side + 1),
        "third": (5, rest, rest), "fourth": (4, rest - 2, rest - 2), "words": (7, 9), "heads": (7, 3),
        "flat": (11,), "seed": (10,), "looked_up": (7, 3),
    }  # fmt: skip
    random = np.random.default_rng(seed)
    arrays = {name: random.standard_normal((batch, *shape)).astype(dtype) for name, shape in shapes.items()}
    ids = random.integers(-VOCABULARY, VOCABULARY, (batch, 7))
    return arrays | {
        "weight": random.standard_normal((5, 6, 3, 3)).astype(dtype), "ids": ids, "unread": np.zeros(1)
    }  # fmt: skip


def one_by_one(arrays, scale, backend):
    """Return the same statistics without a program."""
    found, parts, layers = dict(arrays), [], []
    for step in STEPS:
        result = step.kernel(*(found[name] for name in step.arrays), *step.options, backend=backend)
        if step.layer is None:
            found[step.name] = result
        else:
            parts.append(result)
            layers.append(step.layer)
    return gk.layer_statistics(parts, layers, scale, backend=backend)


@every_backend
def test_a_program_gives_what_its_kernels_give(backend):
    program = gk.Program(STEPS, backend=backend)
    for turn, (batch, side) in enumerate([(3, 10), (3, 10), (5, 10), (1, 12), (4, 10), (2, 12)]):
        arrays, scale = drawn(batch, side=side, seed=turn), np.linspace(0.5, 1e-20, batch)
        expected = one_by_one(arrays, scale, backend)
        for threads in (1, 3):
            np.testing.assert_array_equal(program.run(arrays, scale, threads=threads), expected)


def test_more_shapes_than_are_kept():
    program = gk.Program(STEPS)
    for side in (*range(10, 26), *range(10, 26, 5)):
        arrays, scale = drawn(2, side=side), np.ones(2)
        np.testing.assert_array_equal(program.run(arrays, scale), one_by_one(arrays, scale, "auto"))


def test_arrays_of_other_kinds_are_converted():
    program, scale = gk.Program(STEPS), np.ones(3)
    arrays = drawn(3)
    expected = program.run(arrays, scale)
    fortran = {name: np.asfortranarray(array) for name, array in arrays.items()}
    np.testing.assert_array_equal(program.run(fortran, scale), expected)
    np.testing.assert_array_equal(program.run(arrays, np.repeat(scale, 2)[::2]), expected)
    np.testing.assert_array_equal(program.run(arrays | {"ids": arrays["ids"].astype(np.int32)}, scale), expected)
    doubles = {name: array if name == "ids" else array.astype(np.float64) for name, array in arrays.items()}
    np.testing.assert_array_equal(program.run(doubles, scale), one_by_one(doubles, scale, "auto"))
    assert program.run(drawn(0), np.ones(0)).shape == (0, 7 * 8)


def test_nan_stays_in_its_sample():
    program, scale, arrays = gk.Program(STEPS), np.ones(4), drawn(4)
    clean = program.run(arrays, scale)
    arrays["second"][2, 0, 0, 0] = np.nan
    for _ in range(2):
        spoilt = program.run(arrays, scale)
        np.testing.assert_array_equal(np.delete(spoilt, 2, axis=0), np.delete(clean, 2, axis=0))
        assert np.isnan(spoilt[2]).any()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("weight", (5, 6, 3, 2)),
        ("weight", (4, 6, 3, 3)),
        ("delta", (3, 5, 3, 3)),
        ("seed", (2, 10)),
        ("heads", (3, 6, 3)),
        ("ids", (3, 6)),
    ],
)
def test_what_does_not_fit_is_refused_at_every_run(name, shape):
    program, scale, arrays = gk.Program(STEPS), np.ones(3), drawn(3)
    for _ in range(2):
        program.run(arrays, scale)
        with pytest.raises(gk.KernelError, match=r"shape|axis|size"):
            program.run(arrays | {name: np.ones(shape, np.int64 if name == "ids" else np.float32)}, scale)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("outside", [VOCABULARY, -VOCABULARY - 1])
@every_backend
def test_ids_outside_the_vocabulary_are_refused_at_every_run(backend, outside, dtype):
    program, scale, arrays = gk.Program(STEPS, backend=backend), np.ones(3), drawn(3)
    wrong = arrays | {"ids": arrays["ids"].astype(dtype)}
    wrong["ids"][1, 4] = outside
    for _ in range(2):
        with pytest.raises(gk.KernelError, match=f"sample 1 has id {outside} at position 4, outside -6..5"):
            program.run(wrong, scale)
        program.run(arrays, scale)


def test_a_model_with_an_embedding_runs_compiled(monkeypatch):
    need("native")
    program, scale, arrays = gk.Program(STEPS, backend="native"), np.ones(3), drawn(3)
    expected = program.run(arrays, scale)
    monkeypatch.setattr(program, "_one_by_one", lambda *_: pytest.fail("not in one call"))
    np.testing.assert_array_equal(program.run(arrays, scale), expected)


def test_programs_compile_the_kernels_that_the_native_back_end_names():
    need("native")
    native = import_module("gradscore_kernels._native")
    reducing = {spec.function for name, spec in gk.KERNELS.items() if name != "whole"}  # it is `direct` of one sample
    assert {*reducing, gk.BACKSTEP.function} == set(native.PROGRAM_KERNELS)


def test_the_compiled_program_guards_itself():
    need("native")
    native = import_module("gradscore_kernels._native")
    program = native.Program([("embedding_moments", [0, 1], [[0, 2], [0, 2, 3]], (5,), 0)])
    ids, delta, scale = np.array([[0, -5]]), np.ones((1, 2, 3), np.float32), np.ones(1)
    assert program.run([ids, delta], scale, 1).shape == (1, 16)
    for outside in (5, -6):
        with pytest.raises(IndexError, match="vocabulary of 5"):
            program.run([np.array([[0, outside]]), delta], scale, 1)
    for wrong in ([ids.astype(np.int32), delta], [delta, delta], [ids, delta.astype(np.float64)], [ids, ids]):
        with pytest.raises(TypeError, match=r"int64|float32"):
            program.run(wrong, scale, 1)
    with pytest.raises(IndexError):
        program.run([ids], scale, 1)
    with pytest.raises(ValueError, match="no kernel unknown"):
        native.Program([("unknown", [0], [[0, 2]], (), 0)])


def test_threads_share_a_program():
    program, scale = gk.Program(STEPS), np.ones(3)
    batches = [drawn(3, side=side, seed=side) for side in (10, 12, 14, 10) * 6]
    expected = [one_by_one(arrays, scale, "auto") for arrays in batches]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda arrays: program.run(arrays, scale, threads=1), batches))
    np.testing.assert_array_equal(found, expected)
