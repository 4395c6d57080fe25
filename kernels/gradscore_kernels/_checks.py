"""The one check of shapes and types around every kernel."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._errors import KernelError

P = ParamSpec("P")
Kernel = Callable[P, NDArray[np.float64]]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
INTEGERS = (np.dtype(np.int64), np.dtype(np.int32))


def kernel(**shapes: str) -> Callable[[Kernel[P]], Kernel[P]]:
    """Check the arrays that a kernel takes first, then call it with them contiguous and of one type.

    Parameters
    ----------
    **shapes
        For each array its axes: `a="B C *in", delta="B M *out"`. One name means one size throughout; `*name` stands
        for any number of axes. Arrays whose name is `ids` hold integers, all others float32 or float64.
    """
    axes = {name: spec.split() for name, spec in shapes.items()}

    def decorate(method: Kernel[P]) -> Kernel[P]:
        name = method.__name__

        @wraps(method)
        def checked(*args: P.args, **kwargs: P.kwargs) -> NDArray[np.float64]:
            given = dict(zip(axes, args, strict=False)) | {key: kwargs.pop(key) for key in axes if key in kwargs}
            if len(given) < len(axes):
                missing = next(key for key in axes if key not in given)
                raise KernelError(f"{name}: array {missing!r} {_text(axes[missing])} is missing")
            arrays = {key: _array(name, key, given[key]) for key in axes}
            _check_shapes(name, axes, arrays)
            call: Callable[..., NDArray[np.float64]] = method
            return call(*_one_type(arrays).values(), *args[len(axes) :], **kwargs)

        return checked

    return decorate


def _array(kernel_name: str, key: str, value: object) -> NDArray[Any]:
    """Return `value` as an array of a type that `key` may have."""
    array = np.asarray(value)
    allowed = INTEGERS if key == "ids" else FLOATS
    if array.dtype not in allowed:
        names = " or ".join(dtype.name for dtype in allowed)
        raise KernelError(
            f"{kernel_name}: {key!r} is {array.dtype}, not {names}: convert it with .astype({allowed[0].name!r})"
        )
    return array


def _check_shapes(kernel_name: str, axes: dict[str, list[str]], arrays: dict[str, NDArray[Any]]) -> None:
    """Refuse arrays whose axes do not fit their names, or that hold no gradient at all."""
    sizes: dict[str, tuple[str, int]] = {}
    for key, names in axes.items():
        shape, fixed = arrays[key].shape, [axis for axis in names if not axis.startswith("*")]
        if len(shape) < len(fixed) or (len(shape) > len(fixed) and len(fixed) == len(names)):
            raise KernelError(f"{kernel_name}: {key!r} has shape {list(shape)}, not {_text(names)}")
        for axis, size in zip(fixed, shape, strict=False):
            owner, known = sizes.setdefault(axis, (key, size))
            if known != size:
                raise KernelError(
                    f"{kernel_name}: axis {axis} is {known} in {owner!r} and {size} in {key!r}; shapes are "
                    + ", ".join(f"{k} {list(array.shape)}, expected {_text(axes[k])}" for k, array in arrays.items())
                )
        if 0 in shape[1:]:
            raise KernelError(
                f"{kernel_name}: {key!r} of shape {list(shape)} is empty: a gradient without elements has no statistics"
            )


def _one_type(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Make every array contiguous and all floating ones of the widest type among them."""
    floats = [array.dtype for key, array in arrays.items() if key != "ids"]
    wide = np.dtype(np.float64) if np.dtype(np.float64) in floats else np.dtype(np.float32)
    return {key: np.ascontiguousarray(array, dtype=np.int64 if key == "ids" else wide) for key, array in arrays.items()}


def _text(names: list[str]) -> str:
    return f"[{', '.join(names)}]"
