"""The CUDA back end: kernels on an NVIDIA GPU, by numba-cuda."""
