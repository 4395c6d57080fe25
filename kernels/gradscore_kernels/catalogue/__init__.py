"""Every kernel, stated once: its arrays, options, gradient formula and function."""

from collections.abc import Mapping
from types import MappingProxyType

from gradscore_kernels.catalogue import convolution, dense, embedding, sums
from gradscore_kernels.catalogue.convolution import BACKSTEP
from gradscore_kernels.catalogue.spec import KernelSpec

__all__ = ["BACKSTEP", "KERNELS", "KernelSpec"]

KERNELS: Mapping[str, KernelSpec] = MappingProxyType(
    {spec.name: spec for spec in (*convolution.SPECS, *dense.SPECS, *embedding.SPECS, *sums.SPECS)}
)
"""The kernels that reduce gradients, by the names that layer tables use."""
