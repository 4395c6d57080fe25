"""onnxruntime: sessions, providers, and tensors that stay on a device."""
