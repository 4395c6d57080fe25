"""The metadata of scoring models and self-scoring models, and the weights beside them."""
