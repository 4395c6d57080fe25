"""A scoring model and a verdict joined into one self-scoring model."""
