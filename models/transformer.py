"""A small transformer encoder over vectors. The mean of its positions is classified."""

import torch
from torch import nn
from torch.nn import functional


class Layer(nn.Module):
    """Self-attention, then two dense layers, each with a residual connection (pre-norm)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """Return the sequence [B, T, width]."""
        batch, length, width = sequence.shape
        parts = self.qkv(self.norm1(sequence)).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        weights = torch.softmax(query @ key.transpose(-1, -2) * (width // self.heads) ** -0.5, -1)
        sequence = sequence + self.out((weights @ value).transpose(1, 2).reshape(batch, length, width))
        return sequence + self.down(functional.gelu(self.up(self.norm2(sequence))))


class Transformer(nn.Module):
    """Logits [B, classes] of sequences [B, length, inputs]."""

    def __init__(
        self, inputs: int = 32, width: int = 128, length: int = 64, layers: int = 2, heads: int = 4, classes: int = 10
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, classes)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        hidden = self.layers(self.embed(sequence) + self.position)
        return self.fc(self.norm(hidden).mean(1))
