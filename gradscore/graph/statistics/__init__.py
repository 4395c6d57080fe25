"""Pass 8: the statistics of per-sample gradients as standard ONNX nodes."""
