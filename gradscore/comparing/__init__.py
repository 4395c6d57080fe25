"""Comparison of confidences on labelled rows."""
