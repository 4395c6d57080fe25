"""Which implementation of the kernels runs, and on how many threads."""

import ctypes
import os
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._errors import KernelError
from gradscore_kernels._geometry import ConvGeometry, PoolGeometry

SIMD_VARIABLE = "GRADSCORE_KERNELS_SIMD"

Array = NDArray[Any]
Accumulators = NDArray[np.float64]


class Backend(Protocol):
    """What every back end module holds: arrays come checked, contiguous and of one type; threads is 1 or more."""

    def outer_moments(self, a: Array, delta: Array, threads: int) -> Accumulators: ...
    def conv_moments(self, a: Array, delta: Array, geometry: ConvGeometry, threads: int) -> Accumulators: ...
    def unpooled_conv_moments(
        self,
        a: Array,
        activation: Array,
        pooled_delta: Array,
        geometry: ConvGeometry,
        pool: PoolGeometry,
        threads: int,
    ) -> Accumulators: ...
    def unpooled_conv_input(
        self,
        a: Array,
        activation: Array,
        pooled_delta: Array,
        weight: Array,
        geometry: ConvGeometry,
        pool: PoolGeometry,
        slope: float,
        threads: int,
    ) -> Array: ...
    def sequence_moments(self, a: Array, delta: Array, threads: int) -> Accumulators: ...
    def direct_moments(self, g: Array, threads: int) -> Accumulators: ...
    def position_sum_moments(self, delta: Array, threads: int) -> Accumulators: ...
    def sequence_sum_moments(self, delta: Array, threads: int) -> Accumulators: ...
    def embedding_moments(self, ids: Array, delta: Array, vocabulary: int, threads: int) -> Accumulators: ...


# Fastest first: `auto` takes the first that is there, but never the slow reference; and cuda for arrays on a device only.
REQUIRES = {"native": "gradscore_kernels._native", "numba": "numba", "reference": "numpy", "cuda": "numba_cuda"}
REMEDIES = {
    "native": "reinstall gradscore where a C++17 compiler is at hand (pip install --force-reinstall --no-binary "
    "gradscore gradscore)",
    "numba": "pip install numba",
    "reference": "pip install numpy",
    "cuda": 'pip install "numba-cuda[cu12]" (or [cu13], as the driver has it) on a machine with an NVIDIA GPU',
}


@cache
def available_backends() -> tuple[str, ...]:
    """Names of the back ends that can run here, fastest first; cuda, if there is a device, last.

    `auto` runs cuda where the arrays lie in device memory, and nowhere else.
    """
    here = tuple(name for name, module in REQUIRES.items() if find_spec(module) is not None)
    return here if _has_device() else tuple(name for name in here if name != "cuda")


def default_backend() -> str:
    """Name of the back end that `backend="auto"` runs.

    Raises
    ------
    KernelError
        Neither the compiled module nor numba is installed.
    """
    fastest = available_backends()[0]
    if fastest == "reference":
        raise KernelError(
            f"neither back end native nor numba is installed: {REMEDIES['numba']}, or {REMEDIES['native']}, "
            'or ask for the slow oracle with backend="reference"'
        )
    return fastest


def simd_levels() -> tuple[str, ...]:
    """Instruction sets that the native back end holds and this processor has, fastest first; empty without it."""
    return tuple(_native().simd_levels()) if "native" in available_backends() else ()


def simd_level() -> str | None:
    """Instruction set the native back end runs; None without it. `GRADSCORE_KERNELS_SIMD` forces one of them.

    Raises
    ------
    KernelError
        The variable names a level that is not there.
    """
    return cast("str", _native().simd_level()) if "native" in available_backends() else None


def load(name: str) -> Backend:
    """Return the back end called `name`, or the default for "auto"."""
    if name == "auto":
        name = default_backend()
    if name not in REQUIRES:
        raise KernelError(f"no back end is called {name!r}: choose auto, {', '.join(REQUIRES)}")
    if name not in available_backends():
        raise KernelError(
            f"back end {name!r} is not installed here: {REMEDIES[name]}, or use {', '.join(available_backends())}"
        )
    return LOADERS[name]()


def workers(threads: int | None) -> int:
    """Return the number of threads to use: all processors this process may run on, if not said."""
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1:
        raise KernelError(f"threads is {threads!r}: pass a whole number of 1 or more, or None for all processors")
    return int(threads)


@cache
def _has_device() -> bool:
    """Ask the driver for devices, without loading anything heavy; the simulator counts as one."""
    if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in {"", "0"}:
        return True
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


@cache
def _native() -> Any:
    """Import the compiled module and force the level that the environment asks for."""
    module = import_module(REQUIRES["native"])
    wanted = os.environ.get(SIMD_VARIABLE)
    if wanted:
        if wanted not in module.simd_levels():
            raise KernelError(
                f"{SIMD_VARIABLE}={wanted} is not possible here: choose {', '.join(module.simd_levels())}, or unset it"
            )
        module.force_simd_level(wanted)
    return module


def _python(name: str) -> Backend:
    return cast("Backend", import_module(f"gradscore_kernels._{name}"))


LOADERS: dict[str, Callable[[], Backend]] = {
    "native": _native,
    "numba": cache(lambda: _python("numba")),
    "reference": cache(lambda: _python("reference")),
    "cuda": cache(lambda: _python("cuda")),
}
