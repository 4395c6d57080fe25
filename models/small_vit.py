"""A small vision transformer (after Dosovitskiy et al. 2021): patches, pre-norm layers, and the mean of the positions."""

import torch
from torch import nn

from models.transformer import Layer


class SmallViT(nn.Module):
    """Logits [B, classes] of images [B, channels, side, side], cut into patches without overlap."""

    def __init__(
        self, channels: int = 1, side: int = 28, patch: int = 7, width: int = 64, depth: int = 4, classes: int = 10
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.position = nn.Parameter(torch.randn((side // patch) ** 2, width) * 0.02)
        self.layers = nn.Sequential(*(Layer(width, 4) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.fc(self.norm(self.layers(tokens + self.position)).mean(1))
