"""The back ends: implementations of the kernels, and the choice between them."""
