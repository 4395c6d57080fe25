"""Classifiers for the demo, the tests, the benchmarks and the paper's study."""
