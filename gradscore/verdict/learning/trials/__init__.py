"""Trials on held-out rows: what they say of a verdict, and which recipe they speak for."""
