"""From a table of cases to a fitted meta-classifier: transforms, methods, calibration, and their ONNX nodes."""
