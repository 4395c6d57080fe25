"""The table of back ends, and the choice of one and of its number of threads."""

import ctypes
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, cached_property
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._cores import usable_cores
from gradscore_kernels._errors import KernelError
from gradscore_kernels.backends.base import Backend, CompiledProgram

if TYPE_CHECKING:
    from gradscore_kernels._program import Step

SIMD_VARIABLE = "GRADSCORE_KERNELS_SIMD"

Array = NDArray[Any]
Accumulators = NDArray[np.float64]


class Native(Backend):
    """C++ kernels for each instruction set, which run a whole program in one call."""

    name = "native"
    requires = "gradscore_kernels._native"
    remedy = (
        "reinstall gradscore where a C++17 compiler is at hand (pip install --force-reinstall --no-binary gradscore "
        "gradscore)"
    )
    implementation = requires

    @cached_property
    def module(self) -> Any:
        """The compiled module, set to the instruction set that the environment asks for, if any."""
        module = import_module(self.implementation)
        wanted = os.environ.get(SIMD_VARIABLE)
        if wanted:
            if wanted not in module.simd_levels():
                levels = ", ".join(module.simd_levels())
                raise KernelError(f"{SIMD_VARIABLE}={wanted} is not possible here: choose {levels}, or unset it")
            module.force_simd_level(wanted)
        return module

    def can_compile(self, steps: Sequence["Step"]) -> bool:
        """Tell whether C++ programs have these kernels."""
        return all(step.function in self.module.PROGRAM_KERNELS for step in steps)

    def compiled(self, described: Sequence[tuple[Any, ...]]) -> CompiledProgram:
        """Compile steps into one call."""
        return cast("CompiledProgram", self.module.Program(described))

    def layer_statistics(self, parts: list[Accumulators], layers: list[int], scale: Accumulators) -> Array:
        """Return the statistics, computed in C++."""
        return cast("Array", self.module.layer_statistics(parts, layers, scale))

    def softmax_features(self, logits: Array, labels: Array) -> Array:
        """Return the features, computed in C++."""
        return cast("Array", self.module.softmax_features(logits, labels))


class Numba(Backend):
    """Loops compiled by numba, for machines without a C++ compiler at install time."""

    name = requires = "numba"
    remedy = "pip install numba"
    implementation = "gradscore_kernels.backends.numba_kernels"


class Reference(Backend):
    """The reference: the formulas of the catalogue in float64 NumPy. Slow."""

    name = "reference"
    requires = "numpy"
    remedy = "pip install numpy"
    implementation = "gradscore_kernels.backends.reference"
    automatic = False


class Cuda(Backend):
    """Kernels of numba-cuda, which reduce arrays in device memory where they lie."""

    name = "cuda"
    requires = "numba_cuda"
    remedy = 'pip install "numba-cuda[cu12]" (or [cu13], to match the driver) on a machine with an NVIDIA GPU'
    implementation = "gradscore_kernels.backends.cuda.kernels"
    automatic = False
    reads_device = True

    def is_available(self) -> bool:
        """Tell whether numba-cuda is installed and the driver finds a device."""
        return super().is_available() and _has_device()

    def together(self) -> AbstractContextManager[None]:
        """Return a context at whose end all results are fetched at once, not after every kernel."""
        return cast("AbstractContextManager[None]", self.module.together())

    def device_array(self, value: Any) -> Any:
        """Return a view of an object that has the CUDA array interface."""
        return self.module.device_array(value)


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {backend.name: backend for backend in (Native(), Numba(), Reference(), Cuda())}
)
"""Fastest first; "auto" takes the first automatic one that is available."""


@cache
def available_backends() -> tuple[str, ...]:
    """Return the names of the back ends that can run here, fastest first.

    cuda stands last, if there is a device. "auto" chooses it only for arrays in device memory.
    """
    return tuple(name for name, backend in BACKENDS.items() if backend.is_available())


def default_backend() -> str:
    """Return the name of the back end that `backend="auto"` runs for arrays in main memory.

    Raises
    ------
    KernelError
        Neither the compiled module nor numba is installed.
    """
    fastest = next((name for name in available_backends() if BACKENDS[name].automatic), None)
    if fastest is None:
        raise KernelError(
            f"neither back end native nor numba is installed: {Numba.remedy}, or {Native.remedy}, "
            'or use the slow reference with backend="reference"'
        )
    return fastest


def simd_levels() -> tuple[str, ...]:
    """Return the native back end's instruction sets that this processor has, fastest first.

    Empty where the native back end is not installed.
    """
    return tuple(BACKENDS["native"].module.simd_levels()) if "native" in available_backends() else ()


def simd_level() -> str | None:
    """Return the instruction set that the native back end uses; None where it is not installed.

    The environment variable `GRADSCORE_KERNELS_SIMD` forces one of `simd_levels()`.

    Raises
    ------
    KernelError
        The variable names an instruction set that this processor or this build does not have.
    """
    return cast("str", BACKENDS["native"].module.simd_level()) if "native" in available_backends() else None


def load(name: str) -> Backend:
    """Return the back end called `name`, or the default for "auto".

    Raises
    ------
    KernelError
        No back end has this name, or it is not installed here.
    """
    if name == "auto":
        name = default_backend()
    if name not in BACKENDS:
        raise KernelError(f"no back end is called {name!r}: choose auto, {', '.join(BACKENDS)}")
    if name not in available_backends():
        raise KernelError(
            f"back end {name!r} is not installed here: {BACKENDS[name].remedy}, or use {', '.join(available_backends())}"
        )
    return BACKENDS[name]


def run(function: str, *arguments: Any, backend: str, threads: int | None) -> Array:
    """Run a kernel on a back end. Its arrays are checked, contiguous and of one type."""
    return load(backend).run(function, arguments, workers(threads))


def workers(threads: int | None) -> int:
    """Return the number of threads to use; None means one per usable core.

    Raises
    ------
    KernelError
        The number is not a whole number of 1 or more.
    """
    if threads is None:
        return usable_cores()
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1:
        raise KernelError(f"threads is {threads!r}: pass a whole number of 1 or more, or None for all usable cores")
    return int(threads)


@cache
def _has_device() -> bool:
    """Ask the driver for devices, without loading numba. Its simulator counts as a device."""
    if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in {"", "0"}:
        return True
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
