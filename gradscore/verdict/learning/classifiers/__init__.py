"""Verdicts of one classifier over all columns: the methods, how they are fitted, and how they become ONNX nodes."""
