"""Labelled rows, and confidences side by side on them."""
