"""Benchmarks: kernels against the limits of the machine, and scoring against other implementations."""
