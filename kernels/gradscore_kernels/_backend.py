"""What a back end is: one implementation of the kernels, and what it may be able to do beyond them."""

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
    """The steps of a program for arrays of known shapes, run in one call."""

    def run(self, arrays: Sequence[Array], scale: Accumulators, threads: int) -> Array:
        """Return the statistics of every layer and of all together."""


class Backend:
    """One back end. A subclass names itself and overrides what it can do beyond running kernels one by one.

    Attributes
    ----------
    name
        What `backend=` calls it.
    requires
        The module that must be installed.
    remedy
        How to get it.
    implementation
        The module that holds one function a kernel: arrays and options, then the number of threads.
    automatic
        "auto" may choose it for arrays in main memory.
    reads_device
        It takes arrays that lie in device memory, and only there "auto" chooses it.
    """

    name: ClassVar[str]
    requires: ClassVar[str]
    remedy: ClassVar[str]
    implementation: ClassVar[str]
    automatic: ClassVar[bool] = True
    reads_device: ClassVar[bool] = False

    def is_available(self) -> bool:
        """Tell whether it can run here, without loading it."""
        return find_spec(self.requires) is not None

    @cached_property
    def module(self) -> Any:
        """The implementation, loaded at first use."""
        return import_module(self.implementation)

    def run(self, function: str, arguments: Sequence[Any], threads: int) -> Array:
        """Run a kernel; its arrays come checked, contiguous and of one type, and threads is 1 or more."""
        kernel: Callable[..., Array] | None = getattr(self.module, function, None)
        if kernel is None:
            raise KernelError(f"back end {self.name!r} has no kernel {function}: choose another with backend=…")
        return kernel(*arguments, threads)

    def can_compile(self, steps: Sequence["Step"]) -> bool:  # noqa: ARG002 - most back ends compile nothing
        """Tell whether `compiled` takes these steps."""
        return False

    def compiled(self, described: Sequence[tuple[Any, ...]]) -> CompiledProgram:
        """Return the steps as one call, each described by its function, its arrays' places and shapes, options, layer."""
        raise KernelError(f"back end {self.name!r} compiles no programs: {len(described)} steps run one by one")

    def together(self) -> AbstractContextManager[None]:
        """Return a context at whose end the results of the kernels that were run in it are complete."""
        return nullcontext()

    def layer_statistics(self, parts: list[Accumulators], layers: list[int], scale: Accumulators) -> Array:
        """Return the statistics of every layer and of all together; checked by the caller."""
        return accumulators.layer_statistics(parts, layers, scale)

    def softmax_features(self, logits: Array, labels: Array) -> Array:
        """Return entropy, maximum softmax and residual `[B, 3]`; checked by the caller."""
        return softmax.softmax_features(logits, labels)

    def device_array(self, value: Any) -> Any:
        """View an array in device memory, without a copy."""
        raise KernelError(f"back end {self.name!r} cannot read {type(value).__name__}, which lies in device memory")
