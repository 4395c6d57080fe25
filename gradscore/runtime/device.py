"""Signals that stay where their provider computed them, for kernels that reduce them there."""

from typing import Any

import numpy as np

DEVICES = {"CUDAExecutionProvider": "cuda"}  # onnxruntime's name of the memory that a provider computes in


class DeviceTensor:
    """A runtime's value as the kernels of the back end cuda take it; it holds the memory for as long as it lives."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self._dtype = np.dtype(np.float32)  # what `SignalSession.run_on_device` leaves on a device

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Where the numbers lie: https://nvidia.github.io/numba-cuda/user/cuda_array_interface.html, version 3."""
        return {
            "shape": tuple(self._value.shape()), "typestr": self._dtype.str, "data": (self._value.data_ptr(), False),
            "version": 3,
        }  # fmt: skip
