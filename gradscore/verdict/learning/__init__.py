"""Learning of meta-classifiers: transforms, methods, calibration and thresholds, and their ONNX nodes."""
