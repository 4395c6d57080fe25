"""A small text classifier: word embeddings, one transformer layer, and an MLP on the mean of the positions."""

import torch
from torch import nn

from models.transformer import Layer


class SmallText(nn.Module):
    """Logits [B, classes] of token ids [B, length]."""

    def __init__(self, words: int = 4096, length: int = 96, width: int = 64, classes: int = 5) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        self.layer = Layer(width, 4)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.fc = nn.Linear(width, classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        states = self.norm(self.layer(self.embed(ids) + self.position)).mean(1)
        return self.fc(torch.relu(self.hidden(states)))
