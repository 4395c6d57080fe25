"""The check of shapes and types that every kernel runs first."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from gradscore_kernels._errors import KernelError
from gradscore_kernels.backends.registry import load

P = ParamSpec("P")
Kernel = Callable[P, NDArray[Any]]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
INTEGERS = (np.dtype(np.int64), np.dtype(np.int32))
_DEVICE = "cuda"  # the back end of "auto" for arrays in device memory


def kernel(**shapes: str) -> Callable[[Kernel[P]], Kernel[P]]:
    """Check the arrays of a kernel, then call it with contiguous arrays of one type.

    Parameters
    ----------
    **shapes
        The axes of each array: `a="B C *in", delta="B M *out"`. The same name means the same size. `*name` stands for
        any number of axes. The array `ids` holds integers, all others hold float32 or float64. Arrays in device memory
        (with the CUDA array interface) go to the back end cuda as they are.

    Raises
    ------
    KernelError
        An array is missing, has the wrong type, shape or place, or holds no numbers.
    """
    axes = {name: spec.split() for name, spec in shapes.items()}
    all_floats = "ids" not in axes

    def decorate(method: Kernel[P]) -> Kernel[P]:
        name = method.__name__
        call: Callable[..., NDArray[Any]] = method

        @lru_cache(maxsize=1024)
        def check_shapes(shapes: tuple[tuple[int, ...], ...]) -> None:
            _check_shapes(name, axes, dict(zip(axes, shapes, strict=True)))

        @wraps(method)
        def checked(*args: P.args, **kwargs: P.kwargs) -> NDArray[Any]:
            if all_floats and _are_ready(args[: len(axes)], len(axes)):
                check_shapes(tuple(array.shape for array in args[: len(axes)]))  # type: ignore[attr-defined]  # arrays
                return call(*args, **kwargs)
            given = dict(zip(axes, args, strict=False)) | {key: kwargs.pop(key) for key in axes if key in kwargs}
            if len(given) < len(axes):
                missing = next(key for key in axes if key not in given)
                raise KernelError(f"{name}: array {missing!r} {_text(axes[missing])} is missing")
            options: dict[str, Any] = dict(kwargs)
            on_device = [key for key, value in given.items() if hasattr(value, "__cuda_array_interface__")]
            if on_device:
                options["backend"] = _device_backend(name, on_device[0], options.get("backend", "auto"))
            arrays = {key: _array(name, key, given[key]) for key in axes}
            check_shapes(tuple(tuple(array.shape) for array in arrays.values()))
            return call(*_one_type(name, arrays).values(), *args[len(axes) :], **options)

        return checked

    return decorate


def _device_backend(kernel_name: str, key: str, backend: str) -> str:
    """Return the back end that reads device memory; refuse a back end that cannot."""
    if backend != "auto" and not load(backend).reads_device:
        raise KernelError(
            f"{kernel_name}: {key!r} lies in device memory, which back end {backend!r} cannot read: leave backend out, or "
            "copy the array to the host first"
        )
    return _DEVICE if backend == "auto" else backend


def _array(kernel_name: str, key: str, value: Any) -> Any:
    """Return `value` as an array; refuse types that `key` may not have. Ids always come to the host."""
    if hasattr(value, "__cuda_array_interface__"):
        array = load(_DEVICE).device_array(value)
        array = array.copy_to_host() if key == "ids" and not isinstance(array, np.ndarray) else array
    else:
        array = np.asarray(value)
    allowed = INTEGERS if key == "ids" else FLOATS
    if array.dtype not in allowed:
        names = " or ".join(dtype.name for dtype in allowed)
        raise KernelError(
            f"{kernel_name}: {key!r} is {array.dtype}, not {names}: convert it with .astype({allowed[0].name!r})"
        )
    return array


def _are_ready(arrays: tuple[Any, ...], count: int) -> bool:
    """Tell whether these are `count` arrays that need neither conversion nor copy."""
    if len(arrays) != count or any(type(array) is not np.ndarray for array in arrays):
        return False
    first = arrays[0].dtype
    return first in FLOATS and all(array.dtype == first and array.flags.c_contiguous for array in arrays)


def _check_shapes(kernel_name: str, axes: dict[str, list[str]], shapes: dict[str, tuple[int, ...]]) -> None:
    """Refuse arrays whose axes do not fit their names, and empty arrays."""
    sizes: dict[str, tuple[str, int]] = {}
    for key, names in axes.items():
        shape, fixed = shapes[key], [axis for axis in names if not axis.startswith("*")]
        if len(shape) < len(fixed) or (len(shape) > len(fixed) and len(fixed) == len(names)):
            raise KernelError(f"{kernel_name}: {key!r} has shape {list(shape)}, not {_text(names)}")
        for axis, size in zip(fixed, shape, strict=False):
            owner, known = sizes.setdefault(axis, (key, size))
            if known != size:
                raise KernelError(
                    f"{kernel_name}: axis {axis} is {known} in {owner!r} and {size} in {key!r}; shapes are "
                    + ", ".join(f"{k} {list(own)}, expected {_text(axes[k])}" for k, own in shapes.items())
                )
        if 0 in shape[1:]:
            raise KernelError(
                f"{kernel_name}: {key!r} of shape {list(shape)} is empty: a gradient without elements has no statistics"
            )


def _one_type(kernel_name: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """Make every array contiguous, and all floating ones of the widest type among them.

    Arrays in device memory must be so already: they are not copied.
    """
    floats = [array.dtype for key, array in arrays.items() if key != "ids"]
    wide = np.dtype(np.float64) if np.dtype(np.float64) in floats else np.dtype(np.float32)
    same = {}
    for key, array in arrays.items():
        if isinstance(array, np.ndarray):
            same[key] = np.ascontiguousarray(array, dtype=np.int64 if key == "ids" else wide)
        elif array.dtype == wide and array.is_c_contiguous():
            same[key] = array
        else:
            raise KernelError(
                f"{kernel_name}: {key!r} lies in device memory as {array.dtype}, but the kernel needs it contiguous and "
                f"{wide}: make such a copy on the device first"
            )
    return same


def _text(names: list[str]) -> str:
    return f"[{', '.join(names)}]"
