"""classifier.onnx -> scoring model: read, normalise, find head and layers, differentiate, lower, seed, check."""
