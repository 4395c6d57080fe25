"""Pass 3: which parameters a network learned, and the form of their per-sample gradients."""
