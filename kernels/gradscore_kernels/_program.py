"""The kernels of a whole network as one program: a batch in, statistics of its layers out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._checks import INTEGERS
from gradscore_kernels._network import layer_statistics
from gradscore_kernels.backends.base import CompiledProgram
from gradscore_kernels.backends.registry import load, workers
from gradscore_kernels.catalogue import BACKSTEP, KERNELS

Array = NDArray[Any]
Shapes = tuple[tuple[int, ...], ...]

_SINGLE = (np.dtype(np.float32),)
_KEPT = 8  # compiled programs, one for each shape of the arrays


@dataclass(frozen=True)
class Step:
    """One call of a kernel.

    Attributes
    ----------
    kernel
        A function of this package that takes arrays, or one with the same options.
    arrays
        Names of the arrays that it takes, in order.
    options
        Its further arguments, such as geometries.
    layer
        Number of the layer whose accumulators it returns: 0 first, then the same as before or one more. None for
        `unpooled_conv_input`, which returns another array.
    name
        The name of that array for later steps.
    """

    kernel: Callable[..., Array]
    arrays: tuple[str, ...]
    options: tuple[Any, ...] = ()
    layer: int | None = None
    name: str = ""

    @property
    def function(self) -> str:
        """Name of its function in the module of a back end."""
        return self.kernel.__name__


class Program:
    """Steps to run on any number of batches.

    The native back end runs them in one call and keeps its tables from batch to batch. The results are those of the
    kernels called one by one, bit for bit, with any back end. Several threads may run one program at once.

    Parameters
    ----------
    steps
        The kernels to call, in order.
    backend
        "auto" or one of `available_backends()`.

    Raises
    ------
    KernelError
        The back end cannot run here.
    """

    def __init__(self, steps: Sequence[Step], *, backend: str = "auto") -> None:
        self._steps, self._backend = tuple(steps), backend
        made = {step.name for step in steps if step.layer is None}
        read = dict.fromkeys(name for step in steps for name in step.arrays)
        self._inputs = tuple(name for name in read if name not in made)
        weight = BACKSTEP.reads.index("weight")
        self._weights = {step.arrays[weight] for step in steps if step.kernel is BACKSTEP.call}
        embedding = KERNELS["embedding"].call
        self._ids = tuple((step.arrays[0], step.options[0]) for step in steps if step.kernel is embedding)
        self._compiles = load(backend).can_compile(self._steps)
        self._compiled: dict[Shapes, CompiledProgram] = {}

    def run(self, arrays: Mapping[str, Array], scale: NDArray[np.float64], *, threads: int | None = None) -> Array:
        """Return the statistics of every layer and of all together, as `layer_statistics` does.

        Parameters
        ----------
        arrays
            The arrays that the steps read, by name. Others may be among them.
        scale
            `[B]`, a factor for each sample's gradients.
        threads
            Number of threads. None: `usable_cores()`.

        Returns
        -------
        NDArray
            float64 `[B, 8 · (layers + 1)]`.

        Raises
        ------
        KernelError
            A kernel refuses its arrays.
        """
        given = [arrays[name] for name in self._inputs]
        if not self._compiles or not self._are_ready(given, scale):
            return self._one_by_one(arrays, scale, threads)
        shapes = tuple(
            array.shape if name in self._weights else array.shape[1:]
            for name, array in zip(self._inputs, given, strict=True)
        )
        compiled = self._compiled.get(shapes)
        if compiled is not None and self._ids_name_rows(arrays):
            return np.asarray(compiled.run(self._with_long_ids(given), scale, workers(threads)))
        checked = self._one_by_one(arrays, scale, threads)
        recent = list(self._compiled.items())[1 - _KEPT :]
        self._compiled = {**dict(recent), shapes: load(self._backend).compiled(self._described(shapes))}
        return checked

    def _are_ready(self, given: Sequence[Array], scale: Array) -> bool:
        """Tell whether the compiled steps take these arrays as they are; the kernels convert or refuse others."""
        batch, ids = len(scale), dict(self._ids)
        return (
            batch > 0
            and scale.dtype == np.float64
            and scale.flags.c_contiguous
            and all(
                type(array) is np.ndarray
                and array.dtype in (INTEGERS if name in ids else _SINGLE)
                and array.flags.c_contiguous
                and (len(array) == batch or name in self._weights)
                for name, array in zip(self._inputs, given, strict=True)
            )
        )

    def _ids_name_rows(self, arrays: Mapping[str, Array]) -> bool:
        """Tell whether every id is a row of its table; if not, the kernels name the id."""
        return all(-rows <= arrays[name].min() and arrays[name].max() < rows for name, rows in self._ids)

    def _with_long_ids(self, given: Sequence[Array]) -> list[Array]:
        ids = dict(self._ids)
        return [
            array.astype(np.int64, copy=False) if name in ids else array
            for name, array in zip(self._inputs, given, strict=True)
        ]

    def _described(self, shapes: Shapes) -> list[tuple[Any, ...]]:
        """Describe the steps for the back end: arrays as numbers, given ones first, with their shapes for a batch of 0."""
        known = dict(zip(self._inputs, shapes, strict=True))
        described = []
        for step in self._steps:
            if step.layer is None:
                known[step.name] = known[step.arrays[0]]
            places = [list(known).index(name) for name in step.arrays]
            samples = [[0, *known[name]] for name in step.arrays]
            described.append((step.function, places, samples, step.options, -1 if step.layer is None else step.layer))
        return described

    def _one_by_one(self, arrays: Mapping[str, Array], scale: NDArray[np.float64], threads: int | None) -> Array:
        found, parts = dict(arrays), []
        with load(self._backend).together():
            for step in self._steps:
                given = [found[name] for name in step.arrays]
                result = step.kernel(*given, *step.options, backend=self._backend, threads=threads)
                if step.layer is None:
                    found[step.name] = result
                else:
                    parts.append(result)
        layers = [step.layer for step in self._steps if step.layer is not None]
        return layer_statistics(parts, layers, scale, backend=self._backend)
