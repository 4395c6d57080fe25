"""The CUDA back end: kernels in device memory, by numba-cuda."""
