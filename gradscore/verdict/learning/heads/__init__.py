"""Verdicts of two heads: one for right predictions, one for known inputs, and what they read."""
