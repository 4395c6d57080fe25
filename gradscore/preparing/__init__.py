"""classifier.onnx -> scoring model, and what a scoring model covers."""
