"""How well a confidence tells right predictions from wrong ones."""
