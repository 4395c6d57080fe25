"""The record of a kernel, which back ends, layer tables and raw gradients read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

Array = NDArray[Any]
Slot = Literal["activation", "pooled", "delta", "weight"]
Attributes = Mapping[str, Any]


def no_options(_attributes: Attributes) -> tuple[Any, ...]:
    """Return no options: the kernel takes only arrays."""
    return ()


def as_it_stands(gradient: Array, _attributes: Attributes) -> Array:
    """Return the gradient unchanged: its axes are those of the weight already."""
    return gradient


@dataclass(frozen=True)
class KernelSpec:
    """One kernel.

    Attributes
    ----------
    name
        Its name in layer tables.
    call
        The public function that runs it on a back end: arrays, then options, then `backend` and `threads`.
    reads
        The slots of a reduction that hold its arrays, in the order of the arguments of `call`.
    gradient
        The formula of the gradient that it reduces: takes the arrays and options of `call`, returns float64 `[B, …]`.
    options
        Makes the options of `call` from a reduction's attributes, which are plain values.
    arranged
        Gives the formula's gradient the axes of the weight.
    takes_activation
        True if the slot "activation" holds numbers that are multiplied with δ; false for token ids, for example.
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
        """Name of its function in the module of a back end."""
        return self.call.__name__
