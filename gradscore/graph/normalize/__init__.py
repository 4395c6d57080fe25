"""Passes 1 and 2: bring any dialect of ONNX into one, and find the logits."""
