"""Signals that stay in device memory, where their provider computed them and kernels reduce them."""

from typing import Any

import numpy as np

DEVICES = {"CUDAExecutionProvider": "cuda"}  # onnxruntime's name for a provider's memory


class DeviceTensor:
    """A value of onnxruntime that the back end cuda can read. It keeps the memory as long as it lives."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self._dtype = np.dtype(np.float32)  # the only type that `SignalSession.run_on_device` leaves on a device

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Address and shape of the numbers: https://nvidia.github.io/numba-cuda/user/cuda_array_interface.html, version 3."""
        return {
            "shape": tuple(self._value.shape()), "typestr": self._dtype.str, "data": (self._value.data_ptr(), False),
            "version": 3,
        }  # fmt: skip
