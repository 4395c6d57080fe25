"""Scoring: a batch of inputs -> labels and features."""

from gradscore.scoring.scorer import COUNTERS, Scorer

__all__ = ["COUNTERS", "Scorer"]
