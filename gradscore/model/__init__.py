"""What a scoring model and a self-scoring model say about themselves, and the weights beside them."""
