"""Passes 6a to 9: what a scoring model or a self-scoring model puts out."""
