"""Inputs that belong to no class."""
