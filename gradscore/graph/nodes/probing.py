"""Shapes found by running the model: exact where inference gives up, and they tell the batch axis from all others.

The model runs at three batch sizes, and at two lengths where its inputs have axes of free length. An extent that never
changes is static; one that always equals the batch size is the batch; one that is a multiple of it holds batch and
positions flattened together, and the first sample's own run tells which of the two runs faster.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gradscore.errors import GradscoreError, ModelError
from gradscore.graph.nodes.emitter import extents
from gradscore.graph.nodes.running import run_graph

BATCH = "batch"
POSITIONS_FIRST = "positions_first"  # a flattened axis [T · B] whose batch index runs fastest
FREE_EXTENT = 8
_SEED = 20180207
_RUNS = ((1, FREE_EXTENT), (2, FREE_EXTENT), (3, FREE_EXTENT), (3, FREE_EXTENT + 1))
_BATCHES = tuple(batch for batch, _ in _RUNS)


def probe_shapes(model: ir.Model) -> ir.Model:
    """Set the shape of every input and computed value, in place.

    Raises
    ------
    ModelError
        The model does not run at a batch size of its own choosing.
    """
    computed = [value for node in model.graph for value in node.outputs if value.name]
    runs = probe_values(model, [str(value.name) for value in computed])
    for value in model.graph.inputs:
        sizes = [
            tuple(free for _, free in _RUNS) if extent is None else (extent,) for extent in (extents(value) or ())[1:]
        ]
        value.shape = ir.Shape([BATCH, *(_extent(seen) for seen in sizes)])
    for position, value in enumerate(computed):
        results = [np.asarray(run[position]) for run in runs]
        named = [_extent(seen) for seen in zip(*(result.shape for result in results), strict=True)]
        if named and _is_flattened(results) and _batch_runs_fastest(results[0], results[2]):
            named[0] = f"{POSITIONS_FIRST}_{named[0]}"
        value.shape, value.type = ir.Shape(named), ir.TensorType(ir.DataType.from_numpy(results[0].dtype))
    return model


def probe_values(model: ir.Model, names: list[str]) -> list[list[NDArray[Any]]]:
    """Return the named values of each run.

    Raises
    ------
    ModelError
        The model does not run at a batch size of its own choosing.
    """
    feeds = [(str(value.name), extents(value) or (), _dtype(value)) for value in model.graph.inputs]
    batches = [
        {name: random_input(shape, dtype, batch, free) for name, shape, dtype in feeds} for batch, free in _RUNS
    ]  # fmt: skip
    try:
        return run_graph(model, names, batches)
    except GradscoreError:
        raise
    except Exception as error:  # onnxruntime raises many types of its own
        raise ModelError(
            f"the model does not run at batch sizes 1, 2 and 3 ({str(error).splitlines()[0][:300]}): "
            "export it with a dynamic batch dimension"
        ) from error


def random_input(
    shape: Sequence[int | None], dtype: np.dtype[Any], batch: int, free: int = FREE_EXTENT, *, draw: int = 0
) -> NDArray[np.generic]:
    """Return reproducible input: standard normal numbers, or ids 0 and 1; `free` stands for every extent that may vary.

    Each `draw` is another input.
    """
    sizes = [batch, *(free if extent is None else extent for extent in shape[1:])]
    rng = np.random.default_rng(_SEED + draw)
    return (rng.standard_normal(sizes) if dtype.kind == "f" else rng.integers(0, 2, sizes)).astype(dtype)


def _extent(seen: tuple[int, ...]) -> int | str:
    """Name an extent that varies by how it varies, so that equal ones are known to be equal."""
    if seen == _BATCHES:
        return BATCH
    return seen[0] if len(set(seen)) == 1 else f"extent_{'_'.join(map(str, seen))}"


def _is_flattened(results: list[NDArray[Any]]) -> bool:
    one, two, three = (len(result) for result in results[:3])
    return one > 1 and two == 2 * one and three == 3 * one


def _batch_runs_fastest(single: NDArray[Any], triple: NDArray[Any]) -> bool:
    """Tell whether row t of the first sample is row 3t of a batch of three, and not row t."""
    errors = [
        np.abs(rows.astype(np.float64) - single.astype(np.float64)).max(initial=0.0)
        for rows in (triple[: len(single)], triple[::3])
    ]
    return bool(errors[1] < errors[0])


def _dtype(value: ir.Value) -> np.dtype[Any]:
    if value.dtype is None:
        raise ModelError(f"input {value.name!r} has no type: export the model again")
    return value.dtype.numpy()
