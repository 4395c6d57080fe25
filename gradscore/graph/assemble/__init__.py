"""Passes 6a to 9: the outputs of a scoring model or a self-scoring model."""
