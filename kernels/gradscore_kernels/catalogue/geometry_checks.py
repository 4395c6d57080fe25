"""Checks that arrays fit the geometry of a convolution or of a max pool."""

from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from gradscore_kernels._errors import KernelError
from gradscore_kernels._geometry import ConvGeometry, PoolGeometry

Array = NDArray[Any]


def check_geometry(name: str, pair: dict[str, Array], geometry: ConvGeometry) -> None:
    """Refuse two arrays that cannot be input and output of a convolution with this geometry."""
    if not isinstance(geometry, ConvGeometry):
        raise KernelError(f"{name}: geometry is a {type(geometry).__name__}: pass a ConvGeometry(kernel=...)")
    _check_convolution(name, tuple((key, tuple(array.shape)) for key, array in pair.items()), geometry)


def check_pool(name: str, activation: Array, pooled_delta: Array, pool: PoolGeometry) -> None:
    """Refuse a pooled array that a max pool with this geometry cannot give."""
    if not isinstance(pool, PoolGeometry):
        raise KernelError(f"{name}: pool is a {type(pool).__name__}: pass a PoolGeometry(kernel=...)")
    _check_pooling(name, tuple(activation.shape[2:]), tuple(pooled_delta.shape[2:]), pool)


@lru_cache(maxsize=1024)
def _check_convolution(name: str, pair: tuple[tuple[str, tuple[int, ...]], ...], geometry: ConvGeometry) -> None:
    rank = len(geometry.kernel)
    for key, shape in pair:
        if len(shape) != rank + 2:
            raise KernelError(
                f"{name}: {key!r} has shape {list(shape)}: a kernel {geometry.kernel} needs {rank + 2} axes"
            )
        if shape[1] % geometry.groups:
            raise KernelError(f"{name}: {shape[1]} channels of {key!r} do not divide into {geometry.groups} groups")
    (source, a), (target, out) = pair
    expected = geometry.output(a[2:])
    if out[2:] != expected:
        raise KernelError(
            f"{name}: {source!r} of spatial size {list(a[2:])} under {geometry} gives an output of size "
            f"{list(expected)}, but {target!r} has {list(out[2:])}: check strides, dilations and pads"
        )


@lru_cache(maxsize=1024)
def _check_pooling(name: str, spatial: tuple[int, ...], pooled: tuple[int, ...], pool: PoolGeometry) -> None:
    if not len(spatial) == len(pooled) == len(pool.kernel):
        raise KernelError(
            f"{name}: 'activation' has {len(spatial)} spatial axes and 'pooled_delta' {len(pooled)}, but the pooling's "
            f"kernel {pool.kernel} has {len(pool.kernel)}"
        )
    sizes = pool.sizes(spatial)
    if not all(low <= size <= high for size, (low, high) in zip(pooled, sizes, strict=True)):
        raise KernelError(
            f"{name}: 'activation' of spatial size {list(spatial)} under {pool} gives an output of size "
            f"{[low for low, _ in sizes]} (with ceil_mode {[high for _, high in sizes]}), but 'pooled_delta' has "
            f"{list(pooled)}: check strides, dilations and pads"
        )
