"""Metrics of how well a confidence separates correct from incorrect predictions."""
