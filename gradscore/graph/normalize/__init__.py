"""Pass 1 and 2: any dialect of ONNX into one, and where the logits are."""
