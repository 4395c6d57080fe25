"""Pass 5: rewrite training-only operators as standard ones, and keep gradients in pooled form."""
