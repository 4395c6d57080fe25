"""Models of other libraries -> classifier.onnx."""
