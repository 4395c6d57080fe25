"""The back ends: implementations of the kernels, and which of them runs."""
