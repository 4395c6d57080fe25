"""The protocol of back ends: one implementation of the kernels, and its optional capabilities."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels import _accumulators as accumulators
from gradscore_kernels import _softmax as softmax
from gradscore_kernels._errors import KernelError

if TYPE_CHECKING:
    from gradscore_kernels._program import Step

Array = NDArray[Any]
Accumulators = NDArray[np.float64]
Shapes = tuple[tuple[int, ...], ...]


class CompiledProgram(Protocol):
    """A program for arrays of known shapes, which runs in one call."""

    def run(self, arrays: Sequence[Array], scale: Accumulators, threads: int) -> Array:
        """Return the statistics of every layer and of all layers together."""


class Backend:
    """One back end. A subclass fills in the attributes, and overrides the methods where it can do more.

    Attributes
    ----------
    name
        Its name in `backend=`.
    requires
        The module that must be installed.
    remedy
        How to install it: a command for error messages.
    implementation
        The module with one function per kernel, which takes arrays, options and the number of threads.
    automatic
        Whether "auto" may choose it for arrays in main memory.
    reads_device
        Whether it takes arrays in device memory.
    """

    name: ClassVar[str]
    requires: ClassVar[str]
    remedy: ClassVar[str]
    implementation: ClassVar[str]
    automatic: ClassVar[bool] = True
    reads_device: ClassVar[bool] = False

    def is_available(self) -> bool:
        """Tell whether the back end can run here, without loading it."""
        return find_spec(self.requires) is not None

    @cached_property
    def module(self) -> Any:
        """The module of the implementation, loaded at first use."""
        return import_module(self.implementation)

    def run(self, function: str, arguments: Sequence[Any], threads: int) -> Array:
        """Run a kernel.

        The arrays are checked, contiguous and of one type; `threads` is 1 or more.

        Raises
        ------
        KernelError
            The back end does not have this kernel.
        """
        kernel: Callable[..., Array] | None = getattr(self.module, function, None)
        if kernel is None:
            raise KernelError(f"back end {self.name!r} has no kernel {function}: choose another with backend=…")
        return kernel(*arguments, threads)

    def can_compile(self, steps: Sequence["Step"]) -> bool:  # noqa: ARG002 - most back ends compile nothing
        """Tell whether `compiled` takes these steps."""
        return False

    def compiled(self, described: Sequence[tuple[Any, ...]]) -> CompiledProgram:
        """Compile steps into one call.

        Each is described by its function's name, the numbers and shapes of its arrays, its options and its layer (−1: none).

        Raises
        ------
        KernelError
            The back end compiles no programs.
        """
        raise KernelError(f"back end {self.name!r} compiles no programs: {len(described)} steps run one by one")

    def together(self) -> AbstractContextManager[None]:
        """Return a context for several kernels: their results may be incomplete until it ends."""
        return nullcontext()

    def layer_statistics(self, parts: list[Accumulators], layers: list[int], scale: Accumulators) -> Array:
        """Return the statistics of every layer and of all layers together; the arguments are checked."""
        return accumulators.layer_statistics(parts, layers, scale)

    def softmax_features(self, logits: Array, labels: Array) -> Array:
        """Return entropy, maximum softmax and residual `[B, 3]`; the arguments are checked."""
        return softmax.softmax_features(logits, labels)

    def device_array(self, value: Any) -> Any:
        """Return a view of an array in device memory, without a copy.

        Raises
        ------
        KernelError
            The back end reads main memory only.
        """
        raise KernelError(
            f"back end {self.name!r} cannot read {type(value).__name__}, which lies in device memory: copy it to the host"
        )
