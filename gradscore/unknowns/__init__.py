"""Synthetic inputs that belong to no class of the model."""
