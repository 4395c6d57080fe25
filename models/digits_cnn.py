"""A small CNN for scikit-learn's 8×8 digits, with four layers, which trains in seconds."""

import torch
from torch import nn


class DigitsCNN(nn.Module):
    """Logits [B, 10] of grey images [B, 1, 8, 8]."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc1 = nn.Linear(32 * 2 * 2, 64)
        self.fc2 = nn.Linear(64, classes)
        self.pool = nn.MaxPool2d(2)
        self.activation = nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        maps = self.pool(self.activation(self.conv1(images)))
        maps = self.pool(self.activation(self.conv2(maps)))
        return self.fc2(self.activation(self.fc1(maps.flatten(1))))
