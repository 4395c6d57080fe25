"""Definitions of the classifiers that the demo, the tests and the study train."""
