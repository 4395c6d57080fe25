"""What a kernel is, stated once: everything that back ends, layer tables and raw gradients need to know of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

Array = NDArray[Any]
Slot = Literal["activation", "pooled", "delta", "weight"]
Attributes = Mapping[str, Any]


def no_options(_attributes: Attributes) -> tuple[Any, ...]:
    """Read nothing: the kernel takes arrays alone."""
    return ()


def as_it_stands(gradient: Array, _attributes: Attributes) -> Array:
    """Return the gradient: the formula's axes are those of the weight."""
    return gradient


@dataclass(frozen=True)
class KernelSpec:
    """One kernel.

    Attributes
    ----------
    name
        What a layer table calls it.
    call
        The public function that runs it on a back end: arrays, then options, then `backend` and `threads`.
    reads
        The slots of a reduction that hold its arrays, in the order in which `call` takes them.
    gradient
        The formula of the gradient that it reduces: arrays and options as `call` takes them, to float64 `[B, …]`.
    options
        Reads the further arguments of `call` from a reduction's attributes, which are plain values.
    arranged
        Turns the axes of the formula's gradient into those of the weight.
    takes_activation
        The slot "activation" holds numbers that the layer multiplies with δ, and not token ids.
    """

    name: str
    call: Callable[..., Array]
    reads: tuple[Slot, ...]
    gradient: Callable[..., Array]
    options: Callable[[Attributes], tuple[Any, ...]] = no_options
    arranged: Callable[[Array, Attributes], Array] = as_it_stands
    takes_activation: bool = False

    @property
    def function(self) -> str:
        """Name of the function that back ends hold."""
        return self.call.__name__
