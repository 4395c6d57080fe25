"""Measures: the kernels beside the machine's limits, and scoring beside other ways to the same numbers."""
